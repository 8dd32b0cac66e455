"""Known faults of published models, mended when they are loaded.

Each correction has a name, is recognised by content, says in the log what it changed and why, and
can be switched off. It is part of the model's digest, so results with and without it differ in
their run id.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vault_ml.yolo.cfg import Network, Yolo

YOLOV3_TINY_WEIGHTS_SHA256 = "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c"
"""The released yolov3-tiny.weights, 35,434,956 bytes."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What was changed.

    Attributes:
        name: a stable name, for digests and docs.
        sentence: for the log: what and why.
    """

    name: str
    sentence: str


_TINY_MASK = Correction(
    "yolov3-tiny-mask",
    "yolov3-tiny-mask: the second [yolo] of the cfg says mask=0,1,2, but the released yolov3-tiny "
    "weights were trained with mask=1,2,3 (darknet issue 851), which is used instead; as "
    "published, the smaller boxes have wrong sizes",
)
CORRECTIONS: tuple[Correction, ...] = (_TINY_MASK,)
"""All there are, for the documentation."""


def correct(network: Network, weights_sha256: str) -> tuple[Network, tuple[Correction, ...]]:
    """Mend what is known to be wrong.

    The one correction so far, `yolov3-tiny-mask`: the released YOLOv3-tiny weights were trained
    with the anchors 1, 2, 3 in the second head, the cfg that goes with them says 0, 1, 2. Scores do
    not change, boxes do: AP50 on 128 COCO photos .291 as published, .451 corrected; person .243
    and .541 (pjreddie/darknet issue 851, AlexeyAB/darknet issue 1341).

    Args:
        network: as its cfg says.
        weights_sha256: of the whole .weights file, hexadecimal.

    Returns:
        The network to use, and the corrections that were applied.
    """
    if weights_sha256 != YOLOV3_TINY_WEIGHTS_SHA256:
        return network, ()
    heads = [index for index, layer in enumerate(network.layers) if isinstance(layer, Yolo)]
    if [network.heads[i].mask for i in range(len(heads))] != [(3, 4, 5), (0, 1, 2)]:
        return network, ()
    layers = list(network.layers)
    layers[heads[1]] = replace(network.heads[1], mask=(1, 2, 3))
    return replace(network, layers=tuple(layers)), (_TINY_MASK,)
