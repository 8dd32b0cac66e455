from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from vault_ml.cli import main

ZONES = """\
cameras:
  door:
    labels: [person]
    thresholds: {person: 0.6}
    sizes: {person: {max: 0.5}}
    zones: [{name: path, points: [[0, 0], [0.5, 0], [0.5, 1], [0, 1]], labels: [person]}]
    masks: [{name: road, points: [[0.5, 0], [1, 0], [1, 1]]}]
"""


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["zones", *arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "zones.yaml"
    path.write_text(ZONES)
    return path


def test_the_zones_of_a_camera_are_told_and_drawn(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    still = file.with_name("still.png")
    cv2.imwrite(str(still), np.full((200, 300, 3), 128, np.uint8))
    monkeypatch.setenv("ZONES", str(file))
    assert run("door", "--image", str(still)) == 0
    told = capsys.readouterr().out
    assert "zone path: 4 corners, for person" in told
    assert "mask road: 3 corners, for all" in told
    drawn = cv2.imread(str(file.with_name("still-zones.jpg")))
    assert drawn is not None
    blue, green, red = (int(part) for part in drawn[150, 60])
    assert green > max(blue, red) + 10
    blue, green, red = (int(part) for part in drawn[30, 240])
    assert red > max(blue, green) + 10


def test_a_camera_without_a_part_of_its_own_has_the_defaults(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("yard", "--file", str(file)) == 0
    assert "yard has no part of its own (those are: door)" in capsys.readouterr().out
    assert run("door", "--file", str(file), "--json") == 0
    assert json.loads(capsys.readouterr().out)["zones"][0]["name"] == "path"


def test_what_is_wrong_is_told_with_its_line(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(ZONES.replace("[1, 1]]", "[1, 7]]"))
    assert run("door", "--file", str(file)) == 2
    assert "line 7, cameras.door.masks[0].points[2]" in capsys.readouterr().err
    assert run("door") == 2
    assert "ZONES is not set to a file" in capsys.readouterr().err
    file.write_text(ZONES)
    assert run("door", "--file", str(file), "--image", str(file)) == 2
    assert "is no picture" in capsys.readouterr().err
