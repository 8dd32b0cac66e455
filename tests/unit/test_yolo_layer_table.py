from __future__ import annotations

from vault_ml.yolo.cfg import parse_cfg
from vault_ml.yolo.layer_table import layer_table

CFG = """\
[net]
width=64
height=32
[convolutional]
filters=8
size=3
pad=1
[maxpool]
size=2
stride=2
[dropout]
probability=.25
[convolutional]
filters=8
groups=4
size=3
pad=1
[shortcut]
from=-2
[upsample]
[route]
layers=-1,0
[route]
layers=-1
groups=2
group_id=1
[yolo]
mask=0
anchors=1,2
classes=3
num=1
"""


def test_every_kind_of_layer_has_darknets_row() -> None:
    table = layer_table(parse_cfg(CFG, "my.cfg"))

    assert table.splitlines() == [
        "layer     filters    size              input                output",
        "    0 conv      8  3 x 3 / 1    64 x  32 x   3   ->    64 x  32 x   8  0.001 BFLOPs",
        "    1 max          2 x 2 / 2    64 x  32 x   8   ->    32 x  16 x   8",
        "    2 dropout       p = 0.25               4096  ->  4096",
        "    3 conv      8  3 x 3 / 1    32 x  16 x   8   ->    32 x  16 x   8  0.000 BFLOPs",
        "    4 res    2                  32 x  16 x   8   ->    32 x  16 x   8",
        "    5 upsample            2x    32 x  16 x   8   ->    64 x  32 x   8",
        "    6 route  5 0",
        "    7 route  6 1/2",
        "    8 yolo",
    ]


def test_the_table_follows_the_size_that_is_asked_for() -> None:
    table = layer_table(parse_cfg(CFG, "my.cfg").resized((128, 64)))

    assert " 128 x  64 x   3   ->   128 x  64 x   8" in table.splitlines()[1]
