"""The metadata of an ONNX file, read as the library reads them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tiny_detector import tiny_metadata, write_tiny_model
from vault_ml.errors import ModelError
from vault_ml.inference.onnx_file import read_metadata


def test_reads_what_the_library_reads(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.onnx")
    theirs = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert read_metadata(path) == theirs == tiny_metadata()


def test_model_without_any(tmp_path: Path) -> None:
    assert read_metadata(write_tiny_model(tmp_path / "tiny.onnx", metadata={})) == {}


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.999])
def test_cut_off_file_is_damaged(tmp_path: Path, keep: float) -> None:
    path = write_tiny_model(tmp_path / "tiny.onnx")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ModelError, match="damaged or not an ONNX model"):
        read_metadata(path)


@pytest.mark.parametrize(
    "content", [b"not a model", b"\xff" * 40, b"\x72\x03\x08\x01\x01", b"\x72\x02\x0a\x09"]
)
def test_other_bytes_are_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="damaged or not an ONNX model"):
        read_metadata(path)


def test_missing_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx is not there"):
        read_metadata(tmp_path / "gone.onnx")


def test_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_metadata(tmp_path)
