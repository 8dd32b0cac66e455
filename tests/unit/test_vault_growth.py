from __future__ import annotations

import pytest

from vault_ml.errors import RecordingIncomplete
from vault_ml.vault import growth as growth_module
from vault_ml.vault.growth import Growth


@pytest.mark.parametrize("announced", [None, 0, 1, 500])
def test_a_recording_as_long_as_announced_is_complete(announced: int | None) -> None:
    Growth(300).check("k", "s", 500, announced)


def test_a_recording_that_grows_is_waited_for_until_it_is_whole() -> None:
    growth = Growth(300)
    for size in (100, 200, 400):
        with pytest.raises(RecordingIncomplete, match="not ready yet") as caught:
            growth.check("k", "s", size, 500)
        assert caught.value.patience_s == 300
    growth.check("k", "s", 500, 500)


def test_a_recording_that_does_not_grow_is_taken_as_it_is() -> None:
    growth = Growth(300)
    for size in (100, 600):
        with pytest.raises(RecordingIncomplete):
            growth.check(f"k{size}", "s", size, 500)
        growth.check(f"k{size}", "s", size, 500)
        assert growth._sizes == {}


def test_recordings_of_the_same_name_elsewhere_are_others() -> None:
    growth = Growth(300)
    for source in ("s3", "minio"):
        with pytest.raises(RecordingIncomplete):
            growth.check("k", source, 100, 500)


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth_module, "_MOST_REMEMBERED", 3)
    growth = Growth(300)
    for number in range(10):
        with pytest.raises(RecordingIncomplete):
            growth.check(f"k{number}", "s", 100, 500)
    assert len(growth._sizes) == 3
