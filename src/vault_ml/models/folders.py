"""Where models and what is made of them lie, unless MODEL_DIR and CACHE_DIR say otherwise."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path, user_data_path


def default_model_dir() -> Path:
    """The folder of downloaded models."""
    return user_data_path("vault-ml") / "models"


def default_cache_dir() -> Path:
    """The folder of converted models; may be deleted at any time."""
    return user_cache_path("vault-ml")
