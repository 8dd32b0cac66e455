from __future__ import annotations

import pytest

from vault_ml.errors import ModelError
from vault_ml.yolo.cfg import (
    Activation,
    Convolutional,
    Dropout,
    MaxPool,
    Route,
    Shortcut,
    Upsample,
    Yolo,
    parse_cfg,
)

NET = "[net]\nwidth=64\nheight=32\n"
YOLO = "[yolo]\nmask=0\nanchors=1,2\nclasses=3\nnum=1\n"


def parse_layer(section: str, *, before: str = "") -> object:
    network = parse_cfg(f"{NET}{before}{section}\n{YOLO}", "my.cfg")
    return network.layers[-2]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty file"),
        pytest.param("# nothing\n\n; nothing\n", id="only comments"),
        pytest.param("[convolutional]\nfilters=1\n", id="no net section"),
    ],
)
def test_a_file_that_does_not_begin_with_a_net_section_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"my\.cfg: a darknet \.cfg begins with a \[net\]"):
        parse_cfg(text, "my.cfg")


def test_the_net_section_gives_the_input() -> None:
    network = parse_cfg(NET + YOLO, "my.cfg")

    assert (network.name, network.net_wh, network.channels) == ("my.cfg", (64, 32), 3)
    assert network.resized((96, 160)).net_wh == (96, 160)
    assert network.resized((96, 160)).layers == network.layers


def test_the_net_section_may_be_called_network() -> None:
    assert parse_cfg(NET.replace("net", "network") + YOLO, "my.cfg").net_wh == (64, 32)


def test_blanks_comments_line_ends_and_a_byte_order_mark_do_not_matter() -> None:
    text = (
        "\ufeff[ net ]\r\nwidth = 64 # wide\r\n\theight\t=\t32;high\r\n\r\n; x\r\n# y\r\n"
        + YOLO.replace("anchors=1,2", "anchors = 1, 2")
    )

    network = parse_cfg(text, "my.cfg")

    assert network.net_wh == (64, 32)
    assert network.heads[0].anchors == ((1.0, 2.0),)


def test_the_first_of_two_equal_keys_counts() -> None:
    assert parse_cfg(NET + "width=999\n" + YOLO, "my.cfg").width == 64


def test_keys_that_matter_only_for_training_are_ignored() -> None:
    network = parse_cfg(NET + "momentum=x\nmosaic=1\n" + YOLO + "ignore_thresh=y\n", "my.cfg")

    assert len(network.layers) == 1


def test_convolutional_defaults_are_those_of_darknet() -> None:
    layer = parse_layer("[convolutional]")

    assert layer == Convolutional(
        line=4,
        filters=1,
        size=1,
        stride_x=1,
        stride_y=1,
        padding=0,
        groups=1,
        batch_normalize=False,
        activation=Activation.LOGISTIC,
    )


def test_convolutional_reads_every_key() -> None:
    layer = parse_layer(
        "[conv]\nbatch_normalize=1\nfilters=16\nsize=5\nstride_x=2\nstride_y=3\npad=1\ngroups=4\n"
        "activation=mish"
    )

    assert layer == Convolutional(4, 16, 5, 2, 3, 2, 4, True, Activation.MISH)


def test_padding_counts_where_pad_is_off_and_not_where_it_is_on() -> None:
    apart = parse_layer("[convolutional]\nsize=5\npadding=1\npad=0")
    together = parse_layer("[convolutional]\nsize=5\npadding=1\npad=1")

    assert isinstance(apart, Convolutional)
    assert isinstance(together, Convolutional)
    assert (apart.padding, together.padding) == (1, 2)


def test_dilation_is_forgotten_by_a_window_of_one_and_refused_otherwise() -> None:
    assert isinstance(parse_layer("[convolutional]\nsize=1\ndilation=2"), Convolutional)
    with pytest.raises(ModelError, match="dilation=2 is not supported"):
        parse_layer("[convolutional]\nsize=3\ndilation=2")


@pytest.mark.parametrize(
    ("section", "padding"),
    [
        pytest.param("[maxpool]\nsize=2\nstride=2", 1, id="default is size - 1"),
        pytest.param("[max]\nstride=3", 2, id="size defaults to stride"),
        pytest.param("[maxpool]\nsize=2\npadding=0", 0, id="explicit"),
    ],
)
def test_max_pool_padding(section: str, padding: int) -> None:
    layer = parse_layer(section)

    assert isinstance(layer, MaxPool)
    assert layer.padding == padding


def test_upsample_and_dropout_defaults_are_those_of_darknet() -> None:
    assert parse_layer("[upsample]") == Upsample(4, 2)
    assert parse_layer("[dropout]") == Dropout(4, 0.2)


def test_route_and_shortcut_indices_become_absolute() -> None:
    before = "[upsample]\n" * 3

    assert parse_layer("[route]\nlayers=-1, 0", before=before) == Route(7, (2, 0), 1, 0)
    assert parse_layer("[route]\nlayers=1\ngroups=2\ngroup_id=1", before=before) == Route(
        7, (1,), 2, 1
    )
    assert parse_layer("[shortcut]\nfrom=-3\nactivation=leaky", before=before) == Shortcut(
        7, 0, Activation.LEAKY
    )
    assert parse_layer("[shortcut]\nfrom=1", before=before) == Shortcut(7, 1, Activation.LINEAR)


def test_yolo_takes_the_anchors_of_its_mask() -> None:
    head = parse_cfg(
        NET + "[yolo]\nmask=2,0,\nanchors=1,2, 3,4, 5.5,6,\nclasses=3\nnum=3\nscale_x_y=1.05\n"
        "new_coords=1\n",
        "my.cfg",
    ).heads[0]

    assert head == Yolo(4, (2, 0), ((1, 2), (3, 4), (5.5, 6)), 3, 1.05, True)
    assert head.anchors == ((5.5, 6), (1, 2))


def test_yolo_without_a_mask_takes_all_anchors_and_twenty_classes() -> None:
    head = parse_cfg(NET + "[yolo]\nanchors=1,2,3,4\nnum=2\n", "my.cfg").heads[0]

    assert (head.mask, head.classes, head.scale_x_y, head.new_coords) == ((0, 1), 20, 1.0, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(NET, "there is no [yolo] section", id="no head"),
        pytest.param(
            "[net]\nwidth=64\n" + YOLO, "line 1, [net]: width= and height= are needed", id="no size"
        ),
        pytest.param("[net]\nwidth=0\n" + YOLO, "line 2, [net]: width=0 must be", id="size zero"),
        pytest.param(
            NET + "channels=1\n" + YOLO, "line 4, [net]: channels=1 is not supported", id="grey"
        ),
        pytest.param(
            NET + YOLO + YOLO.replace("classes=3", "classes=4"),
            "the [yolo] sections disagree about classes=",
            id="heads disagree",
        ),
        pytest.param(NET + "[yolo\n", "line 4: the section '[yolo' is not closed", id="bracket"),
        pytest.param(NET + "hello\n", "line 4: expected [section] or key=value", id="no equals"),
        pytest.param("width=64\n", "line 1: expected [section] or key=value", id="no section"),
        pytest.param(
            NET + "[gru]\n" + YOLO, "line 4, [gru]: this layer is not supported", id="layer"
        ),
        pytest.param(
            NET + "[conv]\nfilters=x\n" + YOLO,
            "line 5, [conv]: filters: 'x' is not a whole number",
            id="not a number",
        ),
        pytest.param(
            NET + "[dropout]\nprobability=nan\n" + YOLO,
            "line 5, [dropout]: probability: 'nan' is not a number",
            id="not finite",
        ),
        pytest.param(
            NET + "[conv]\nactivation=elu\n" + YOLO,
            "line 5, [conv]: activation=elu is not supported (supported: linear, leaky,",
            id="activation",
        ),
        pytest.param(
            NET + "[conv]\nxnor=1\n" + YOLO, "line 5, [conv]: xnor=1 is not supported", id="xnor"
        ),
        pytest.param(
            NET + "[conv]\ndontload=1\n" + YOLO, "dontload=1 is not supported", id="dontload"
        ),
        pytest.param(
            NET + "[maxpool]\nsize=2\npadding=4\n" + YOLO, "padding=4 is too large", id="padding"
        ),
        pytest.param(
            NET + "[upsample]\nscale=2\n" + YOLO, "scale=2 is not supported", id="scaled upsample"
        ),
        pytest.param(
            NET + "[upsample]\nstride=-2\n" + YOLO, "stride=-2 must be at least 1", id="reverse"
        ),
        pytest.param(NET + "[route]\n" + YOLO, "[route]: layers= is needed", id="route to nothing"),
        pytest.param(
            NET + "[upsample]\n[route]\nlayers=-2\n" + YOLO,
            "layers=-2 does not name an earlier layer",
            id="route before the start",
        ),
        pytest.param(
            NET + "[upsample]\n[route]\nlayers=1\n" + YOLO,
            "layers=1 does not name an earlier layer",
            id="route to itself",
        ),
        pytest.param(
            NET + "[upsample]\n[route]\nlayers=0\ngroup_id=1\n" + YOLO,
            "group_id=1 is not below groups=1",
            id="group",
        ),
        pytest.param(
            NET + "[upsample]\n[shortcut]\nfrom=0,0\n" + YOLO,
            "from= must name one layer, got 2",
            id="two shortcuts",
        ),
        pytest.param(
            NET + "[upsample]\n[shortcut]\nfrom=0\nweights_type=per_channel\n" + YOLO,
            "weights_type is not supported",
            id="weighted shortcut",
        ),
        pytest.param(
            NET + "[yolo]\nanchors=1,2\nnum=2\n", "num=2 needs 4 numbers in anchors=", id="anchors"
        ),
        pytest.param(
            NET + "[yolo]\nanchors=1,2\nmask=1\nnum=1\n", "mask= must name anchors 0..0", id="mask"
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_cfg(text, "my.cfg")

    assert str(caught.value).startswith("my.cfg")
    assert message in str(caught.value)
