from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from tiny_model_files import CFG, WEIGHTS, known_tiny, write_wheel
from vault_ml.errors import ModelError
from vault_ml.models.package import fetch_package, find_in_package


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its index; nothing else is asked."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def install(wheel: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))


def test_a_model_that_no_package_carries_is_in_none() -> None:
    assert find_in_package(known_tiny()) is None


def test_a_package_that_is_not_installed_has_nothing(index: Path) -> None:
    assert find_in_package(known_tiny(package=write_wheel(index))) is None


def test_an_installed_package_is_found_without_importing_it(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = write_wheel(index)
    install(next(index.iterdir()), tmp_path / "site", monkeypatch)

    found = find_in_package(known_tiny(package=package))

    assert found is not None
    assert [path.read_bytes() for path in found] == [CFG.encode(), WEIGHTS]
    assert "carriesatiny" not in sys.modules


@pytest.mark.parametrize("missing", [True, False], ids=["a file is missing", "a file differs"])
def test_an_installed_package_with_other_content_does_not_count(
    missing: bool, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = write_wheel(index)
    install(next(index.iterdir()), tmp_path / "site", monkeypatch)
    weights = tmp_path / "site" / "carriesatiny" / "data" / "tiny.weights"
    if missing:
        weights.unlink()
    else:
        weights.write_bytes(WEIGHTS + b"x")

    assert find_in_package(known_tiny(package=package)) is None


def test_pip_fetches_the_package_and_only_the_model_stays(index: Path, tmp_path: Path) -> None:
    package = write_wheel(index)
    target = tmp_path / "models"
    target.mkdir()

    fetch_package(known_tiny(package=package), package, target)

    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        "tiny.cfg": CFG.encode(),
        "tiny.weights": WEIGHTS,
    }
    assert "carriesatiny" not in sys.modules


def test_an_archive_with_another_sum_is_refused_by_pip_and_said_so(
    index: Path, tmp_path: Path
) -> None:
    package = write_wheel(index)
    with next(index.iterdir()).open("ab") as file:
        file.write(b"x")

    with pytest.raises(ModelError, match=r"pip could not fetch carriesatiny==1\.0 \(it ended with"):
        fetch_package(known_tiny(package=package), package, tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_files_with_another_sum_are_refused(index: Path, tmp_path: Path) -> None:
    package = write_wheel(index, weights=WEIGHTS + b"x")

    with pytest.raises(ModelError, match=r"does not hold the tiny\.weights that is expected"):
        fetch_package(known_tiny(package=package), package, tmp_path)


def test_a_pip_that_hangs_is_ended(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vault_ml.models.package._PIP_TIMEOUT_S", 0.001)
    package = write_wheel(index)

    with pytest.raises(ModelError, match=r"did not fetch carriesatiny==1\.0 within 0\.001 s"):
        fetch_package(known_tiny(package=package), package, tmp_path)
