"""Class names."""

from __future__ import annotations

from vault_ml.errors import ModelError

COCO: tuple[str, ...] = (
    "person", "bicycle", "car", "motorbike", "aeroplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "sofa", "pottedplant",
    "bed", "diningtable", "toilet", "tvmonitor", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase",
    "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 classes of COCO under the names of darknet's `coco.names` (sofa, not couch)."""


def parse_names(text: str, name: str) -> tuple[str, ...]:
    """Read a `.names` file: one class name per line, in class order; blank lines at the end.

    Args:
        text: the file's text.
        name: the file's name, for messages.

    Raises:
        ModelError: there is no name in it, or a blank line between names, which would shift every
            class after it.
    """
    names = tuple(line.strip() for line in text.removeprefix("\ufeff").rstrip().splitlines())
    if not names:
        raise ModelError(f"{name}: there are no class names in this file")
    if "" in names:
        raise ModelError(f"{name}, line {names.index('') + 1}: a class name is missing")
    return names
