"""Pictures with boxes, for people."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from vault_ml.detection import Detections
from vault_ml.interest.areas import Area


def colour_of(label: str) -> tuple[int, int, int]:
    """A colour for a class, RGB 0..255: the same in every picture."""
    hue = zlib.crc32(label.encode()) / 2**32
    r, g, b = colorsys.hsv_to_rgb(hue, 0.75, 0.95)
    return round(r * 255), round(g * 255), round(b * 255)


def annotate(picture: NDArray[np.uint8], detections: Detections) -> NDArray[np.uint8]:
    """Draw boxes, labels and confidences.

    Args:
        picture: (h, w, 3) uint8 RGB, the original frame.
        detections: boxes in pixels of that frame.

    Returns:
        (h, w, 3) uint8 RGB, a new picture.
    """
    return annotate_boxes(
        picture,
        [[float(v) for v in box] for box in detections.xyxy],
        [detections.label(i) for i in range(len(detections))],
        [float(c) for c in detections.confidence],
    )


def annotate_boxes(
    picture: NDArray[np.uint8],
    boxes: Sequence[Sequence[float]],
    labels: Sequence[str],
    confidences: Sequence[float],
) -> NDArray[np.uint8]:
    """As `annotate`, from the parallel lists of one frame of a result message.

    Args:
        picture: (h, w, 3) uint8 RGB, the original frame.
        boxes: xyxy, frame pixels, by falling confidence.
        labels: a name for each.
        confidences: 0 to 1, for each.
    """
    drawn = picture.copy()
    # Line and letters grow with the picture, so that a box on 4K is as visible as one on CIF.
    scale = max(picture.shape[0], picture.shape[1]) / 1000
    line_px = max(1, round(2 * scale))
    rows = list(zip(boxes, labels, confidences, strict=True))
    for box, label, confidence in reversed(rows):  # the most confident is drawn last, on top
        colour = colour_of(label)
        x1, y1, x2, y2 = (round(v) for v in box)
        cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, line_px)
        _label(drawn, f"{label} {confidence:.2f}", (x1, y1), colour, scale)
    return drawn


def draw_areas(
    picture: NDArray[np.uint8], areas: Sequence[Area], colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Draw areas with their names, a quarter filled.

    Args:
        picture: (h, w, 3) uint8 RGB.
        areas: zones or masks.
        colour: RGB 0..255.

    Returns:
        (h, w, 3) uint8 RGB, a new picture.
    """
    height, width = picture.shape[:2]
    filled, drawn = picture.copy(), picture.copy()
    scale = max(height, width) / 1000
    outlines = [np.rint(np.array(area.points) * [width, height]).astype(np.int32) for area in areas]
    for outline in outlines:
        cv2.fillPoly(filled, [outline], colour)
    cv2.addWeighted(filled, 0.25, picture, 0.75, 0.0, drawn)
    for area, outline in zip(areas, outlines, strict=True):
        cv2.polylines(drawn, [outline], True, colour, max(1, round(2 * scale)), cv2.LINE_AA)
        x, y = (int(side) for side in outline.min(axis=0))
        _label(drawn, area.name, (x, y), colour, scale)
    return drawn


def _label(
    picture: NDArray[np.uint8],
    text: str,
    corner: tuple[int, int],
    colour: tuple[int, int, int],
    scale: float,
) -> None:
    font, size, stroke_px = cv2.FONT_HERSHEY_SIMPLEX, max(0.45, 0.5 * scale), max(1, round(scale))
    (text_w, text_h), below = cv2.getTextSize(text, font, size, stroke_px)
    height = text_h + below + 2
    x = min(corner[0], max(0, picture.shape[1] - text_w))
    y = corner[1] if corner[1] >= height else corner[1] + height
    cv2.rectangle(picture, (x, y - height), (x + text_w, y), colour, cv2.FILLED)
    # Dark letters on a light ground and the other way round (ITU-R BT.601 luma).
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = (0, 0, 0) if luma > 140 else (255, 255, 255)
    cv2.putText(picture, text, (x, y - below), font, size, ink, stroke_px, cv2.LINE_AA)


def to_jpeg(picture: NDArray[np.uint8], *, quality: int = 90) -> bytes:
    """Encode (h, w, 3) uint8 RGB as JPEG.

    Raises:
        ValueError: OpenCV cannot encode it.
    """
    is_ok, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not is_ok:
        raise ValueError(f"cannot encode a picture of shape {picture.shape}")
    return encoded.tobytes()
