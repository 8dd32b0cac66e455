from __future__ import annotations

import pytest

from vault_ml.file_name import RecordingName, motion_box, parse_file_name


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "clip.mp4",
        "u/holiday_at_the_sea_2021.mp4",
        "u/1630567591_6-967003_200-200-400-400_24_769.mp4",
        "u/1630567591_x-967003_gate_0-0-0-0_24_769.mp4",
        "u/1630567591_6_gate_0-0-0-0_24_769.mp4",
        "u/abc_6-967003_gate_0-0-0-0_24_769.mp4",
        "u/1630567591_6-967003_gate_0-0-0-0_many_769.mp4",
        "u/1630567591_6-967003_gate_0-0-0-0_24_x.mp4",
        "u/1630567591_6-967003_gate_0-0-0-0_24_769_thumbnail.jpg",
        "u/" + "9" * 30 + "_6-967003_gate_0-0-0-0_24_769.mp4",
        "u/١٦٣٠٥٦٧٥٩١_6-967003_gate_0-0-0-0_24_769.mp4",
    ],
)
def test_a_name_that_no_agent_wrote_has_no_parts(key: str) -> None:
    assert parse_file_name(key) is None


def test_the_name_of_the_original_is_read() -> None:
    key = "youruser/1630567591_6-967003_highway4_200-200-400-400_24_769.mp4"
    assert parse_file_name(key) == RecordingName(
        directory="youruser",
        timestamp=1630567591,
        sub_second_s=0.967003,
        device="highway4",
        region="200-200-400-400",
        changes=24,
        token=769,
    )


@pytest.mark.parametrize(
    ("sub_second", "seconds"),
    [("6-967003", 0.967003), ("4-2705", 0.002705), ("3-737", 0.737), ("1-1", 0.001),
     ("6-9999999", 0.999999), ("1-0", 0.0)],
)  # fmt: skip
def test_the_sub_second_is_micro_or_milliseconds_by_its_digits(
    sub_second: str, seconds: float
) -> None:
    name = parse_file_name(f"u/1_{sub_second}_gate_0-0-0-0_-1_0.mp4")
    assert name is not None
    assert name.sub_second_s == pytest.approx(seconds)
    assert 0 <= name.sub_second_s < 1


@pytest.mark.parametrize("extension", [".mp4", ".mkv", ".avi", ".MOV", ""])
def test_a_device_may_have_dots_and_underscores(extension: str) -> None:
    name = parse_file_name(f"a/b/1_3-737_front.door_2_1-2-3-4_-1_30000{extension}")
    assert name is not None
    assert (name.directory, name.device, name.region) == ("a/b", "front.door_2", "1-2-3-4")
    assert (name.changes, name.token) == (-1, 30000)


def test_a_name_without_directory_is_read() -> None:
    name = parse_file_name("1_3-737_gate_1-2-3-4_-1_30000.mp4")
    assert name is not None
    assert name.directory == ""


@pytest.mark.parametrize(
    ("region", "box"),
    [
        pytest.param("200-200-400-400", (200, 200, 600, 600), id="both-readings"),
        pytest.param("0-0-0-0", None, id="none"),
        pytest.param("5-5-0-9", None, id="flat"),
        pytest.param("5-5-9-0", None, id="narrow"),
        pytest.param("1-2-3", None, id="short"),
        pytest.param("a-b-c-d", None, id="words"),
    ],
)
def test_a_motion_region_is_the_box_around_both_readings(
    region: str, box: tuple[int, int, int, int] | None
) -> None:
    assert motion_box(region) == box
