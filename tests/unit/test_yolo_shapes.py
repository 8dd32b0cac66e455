from __future__ import annotations

import pytest

from vault_ml.errors import ModelError
from vault_ml.yolo.cfg import parse_cfg
from vault_ml.yolo.shapes import Shape, infer_shapes

YOLO = "[yolo]\nmask=0\nanchors=1,2\nclasses=3\nnum=1\n"


def shapes(layers: str, *, width: int = 64, height: int = 32) -> tuple[Shape, ...]:
    return infer_shapes(parse_cfg(f"[net]\nwidth={width}\nheight={height}\n{layers}", "my.cfg"))


def conv(filters: int, rest: str = "") -> str:
    return f"[convolutional]\nfilters={filters}\n{rest}\n"


def test_a_network_that_is_only_a_head_has_the_wrong_number_of_channels() -> None:
    with pytest.raises(ModelError, match="need filters=8 in the layer before it, which has 3"):
        shapes(YOLO)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        pytest.param(conv(8, "size=3\nstride=2\npad=1"), Shape(8, 16, 32), id="convolution"),
        pytest.param(conv(8, "size=3"), Shape(8, 30, 62), id="convolution without padding"),
        pytest.param(
            conv(8, "size=3\nstride_x=2\nstride_y=4\npad=1"), Shape(8, 8, 32), id="two strides"
        ),
        pytest.param("[maxpool]\nsize=2\nstride=2\n", Shape(3, 16, 32), id="pool"),
        pytest.param("[maxpool]\nsize=2\nstride=1\n", Shape(3, 32, 64), id="pool keeps the size"),
        pytest.param("[maxpool]\nsize=2\nstride=2\npadding=0\n", Shape(3, 16, 32), id="bare pool"),
        pytest.param("[upsample]\nstride=3\n", Shape(3, 96, 192), id="upsample"),
        pytest.param("[dropout]\n", Shape(3, 32, 64), id="dropout"),
    ],
)
def test_size_of_what_comes_out(layer: str, expected: Shape) -> None:
    assert shapes(layer + conv(8) + YOLO)[0] == expected


def test_an_odd_size_is_rounded_up_by_a_pool_of_two() -> None:
    assert shapes("[maxpool]\nsize=2\nstride=2\n" + conv(8) + YOLO, width=13, height=7)[0] == Shape(
        3, 4, 7
    )


def test_route_adds_channels_and_groups_divide_them() -> None:
    layers = conv(4) + conv(6) + "[route]\nlayers=0,1\n[route]\nlayers=0,1\ngroups=2\n" + conv(8)

    assert [shape.channels for shape in shapes(layers + YOLO)] == [4, 6, 10, 5, 8, 8]


def test_shortcut_keeps_the_channels_of_the_layer_before_it() -> None:
    layers = conv(4) + conv(8) + "[shortcut]\nfrom=0\n" + YOLO

    assert shapes(layers)[2] == Shape(8, 32, 64)
    assert shapes(layers)[2].values == 8 * 32 * 64


POOL = "[maxpool]\nsize=2\nstride=2\n"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        pytest.param(
            conv(8, "size=65") + YOLO,
            "line 4, [convolutional]: the picture is smaller",
            id="window",
        ),
        pytest.param(
            conv(8, "groups=2") + YOLO, "groups=2 divides neither evenly: 3 channels", id="groups"
        ),
        pytest.param(
            conv(4) + conv(9, "groups=2") + YOLO, "evenly: 4 channels in, filters=9", id="filters"
        ),
        pytest.param(
            conv(8) + POOL + "[shortcut]\nfrom=0\n" + YOLO,
            "[shortcut]: adding 64x32 to 32x16 is not supported; width= and height= should be",
            id="shortcut of another size",
        ),
        pytest.param(
            conv(8) + POOL + "[route]\nlayers=0,1\n" + YOLO,
            "[route]: the layers differ in size (64x32, 32x16); width= and height=",
            id="route of another size",
        ),
        pytest.param(
            conv(8) + "[route]\nlayers=0\ngroups=3\n" + YOLO,
            "groups=3 does not divide the channels",
            id="route groups",
        ),
        pytest.param(
            conv(8) + YOLO + conv(8) + YOLO,
            "the layer before it is a [yolo] layer",
            id="after a head",
        ),
        pytest.param(
            conv(8) + YOLO + "[route]\nlayers=1\n" + YOLO,
            "layers= names a [yolo] layer",
            id="route to a head",
        ),
        pytest.param(
            conv(8) + YOLO + "[route]\nlayers=0\n[shortcut]\nfrom=1\n" + YOLO,
            "from= names a [yolo] layer",
            id="shortcut to a head",
        ),
        pytest.param(
            conv(9) + YOLO,
            "[yolo]: 1 anchors and 3 classes need filters=8 in the layer before it, which has 9",
            id="filters before a head",
        ),
    ],
)
def test_layers_that_do_not_fit_are_named(layers: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        shapes(layers)

    assert str(caught.value).startswith("my.cfg, line ")
    assert message in str(caught.value)
