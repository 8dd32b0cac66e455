"""A converted model that takes inputs of any size: for INPUT_SHAPE=rect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vault_ml.errors import ModelError
from vault_ml.geometry import INPUT_MULTIPLE
from vault_ml.models.prepare import PreparedModel, write_atomically


def any_size(model: PreparedModel, cache_dir: Path) -> PreparedModel:
    """The same network with free height and width, kept in the cache.

    YOLO's layers work on any size whose sides are multiples of its strides; only the declared
    shapes say otherwise. The digest stays: the shape of the input is told apart by the run id.

    Raises:
        ModelError: the network's own sides are no such multiples, or the cache cannot be written.
    """
    if model.family != "darknet":
        raise ModelError(
            f"INPUT_SHAPE=rect: {model.name} is of the family {model.family}, whose exports read "
            "one size only; set INPUT_SHAPE=square"
        )
    if any(side % INPUT_MULTIPLE for side in model.net_wh):
        raise ModelError(
            f"INPUT_SHAPE=rect: {model.name} is made for {model.net_wh[0]}x{model.net_wh[1]}, and "
            f"rectangles need sides that are multiples of {INPUT_MULTIPLE}; set INPUT_SHAPE=square"
        )
    target = cache_dir / f"{model.onnx.stem}-any-size.onnx"
    if model.onnx.parent != cache_dir:  # somebody's own file: its name says nothing of its content
        target = cache_dir / f"{model.onnx.stem}-{model.sha256[:32]}-any-size.onnx"
    if not target.is_file():
        write_atomically(target, _without_sizes(model))
    return replace(model, onnx=target)


def _without_sizes(model: PreparedModel) -> bytes:
    import onnx

    network = onnx.load(model.onnx)
    dimensions = network.graph.input[0].type.tensor_type.shape.dim
    for dimension, name in zip(dimensions[2:], ("height", "width"), strict=True):
        dimension.ClearField("dim_value")
        dimension.dim_param = name
    for output in network.graph.output:
        for index, dimension in enumerate(output.type.tensor_type.shape.dim[2:]):
            dimension.ClearField("dim_value")
            dimension.dim_param = f"{output.name}_{'hw'[index]}"
    del network.graph.value_info[:]
    content: bytes = network.SerializeToString()
    return content
