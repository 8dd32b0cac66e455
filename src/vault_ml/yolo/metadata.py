"""What a model that vault-ml wrote says about itself, in ONNX's `metadata_props`.

Kept apart from the writer, so that whoever only reads a model need not import onnx.
"""

from __future__ import annotations

METADATA_HEADS = "vault_ml.heads"
"""JSON: how to read the outputs, see `head.heads_from_json`."""

METADATA_LABELS = "vault_ml.labels"
"""JSON list of class names, in class order."""

METADATA_NET_WH = "vault_ml.net_wh"
"""JSON list, width and height of the input, pixels."""

METADATA_PLACING = "vault_ml.placing"
"""JSON object, the fields of `geometry.Placing`; darknet's where it is missing."""

METADATA_BATCH = "vault_ml.batch"
"""How many pictures the model takes at once, where it was exported for just so many."""

EXPORT_VERSION = 1
"""Counts the changes of `export.py` that change what a model computes. Part of every model's
digest, so that a new version does not use what an old one cached."""
