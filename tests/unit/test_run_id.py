from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import pytest

from vault_ml.run_id import WayOfLooking, run_id

WAY = WayOfLooking(
    model_sha256="ab" * 32,
    runtime="onnxruntime 1.20.0",
    precision="fp32",
    input_shape="square",
    number_of_predictions=5,
    frame_sampling="keyframe",
    confidence_threshold=0.5,
    nms_threshold=0.45,
    object_threshold=1,
    allowed_labels=None,
    profile="vault",
    extras=True,
)


def test_the_same_event_gives_the_same_id_today_and_next_year() -> None:
    assert run_id("u/a.mp4", "storj", WAY) == PINNED


# Consumers keep results by it: a new version must not give old recordings new ids by accident.
PINNED = "a80678f4-0f94-5758-8f65-5e01b87a98c3"


def test_it_is_a_uuid_of_version_5() -> None:
    value = uuid.UUID(run_id("", "", WAY))
    assert (value.version, value.variant) == (5, uuid.RFC_4122)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_sha256", "cd" * 32),
        ("runtime", "openvino 2025.0"),
        ("precision", "int8"),
        ("input_shape", "rect"),
        ("number_of_predictions", 6),
        ("frame_sampling", "exact"),
        ("confidence_threshold", 0.25),
        ("nms_threshold", 0.5),
        ("object_threshold", 2),
        ("allowed_labels", ("car",)),
        ("profile", "hub"),
        ("extras", False),
        ("more", (("move_distance", "5 px"),)),
        ("more", (("zones", "ab" * 32),)),
    ],
)
def test_whatever_changes_the_result_changes_the_id(field: str, value: Any) -> None:
    assert field in {each.name for each in dataclasses.fields(WayOfLooking)}
    other = dataclasses.replace(WAY, **{field: value})
    assert run_id("u/a.mp4", "storj", other) != run_id("u/a.mp4", "storj", WAY)


def test_key_and_source_are_not_mixed_up() -> None:
    ids = {
        run_id(key, source, WAY) for key, source in [("a", "b"), ("b", "a"), ("ab", ""), ("é", "")]
    }
    assert len(ids) == 4
