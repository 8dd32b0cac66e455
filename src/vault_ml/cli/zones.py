"""`vault-ml zones`: check the zones of a camera, and draw them on a picture."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def zones(
    camera: Annotated[str, typer.Argument(help="The camera, as events name it.")],
    image: Annotated[
        Path | None, typer.Option(help="A picture of the camera to draw them on.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="The zones; default: the variable ZONES.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the drawing goes, a .jpg file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Check ZONES, say what is of interest at a camera, and draw it.

    Zones are green, masks red. Ends with 2 when something in the file is wrong; every problem is
    told with its line.
    """
    from vault_ml.app import zones_file
    from vault_ml.errors import ConfigError
    from vault_ml.interest.judging import Interest

    path = file or Path(os.environ.get("ZONES", "").strip() or ".")
    if not path.is_file():
        raise ConfigError("ZONES is not set to a file; name one with --file.")
    found = zones_file(path)
    here = Interest(None, found.defaults, found.cameras).at(camera)
    if as_json:
        print(json.dumps({"camera": camera, **asdict(here)}, default=sorted))
    else:
        if camera not in found.cameras:
            known = ", ".join(found.cameras) or "none"
            print(f"{camera} has no part of its own (those are: {known}); the defaults hold")
        print(f"labels: {', '.join(sorted(here.labels)) if here.labels else 'all'}")
        for label, threshold in here.thresholds.items():
            print(f"confidence of {label}: from {threshold:g}")
        for label, sizes in here.sizes.items():
            print(f"size of {label}: {sizes.least:.2%} to {sizes.most:.2%} of the picture")
        for kind, areas in (("zone", here.zones), ("mask", here.masks)):
            for area in areas:
                whom = ", ".join(sorted(area.labels)) if area.labels else "all"
                print(f"{kind} {area.name}: {len(area.points)} corners, for {whom}")
    if image is not None:
        _draw(image, output or image.with_name(f"{image.stem}-zones.jpg"), here)


def _draw(image: Path, output: Path, here: object) -> None:
    import cv2
    import numpy as np

    from vault_ml.annotate import draw_areas, to_jpeg
    from vault_ml.errors import ConfigError
    from vault_ml.interest.areas import CameraInterest

    assert isinstance(here, CameraInterest)
    try:
        decoded = cv2.imdecode(np.frombuffer(image.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        decoded = None
    if decoded is None:
        raise ConfigError(f"{image} is no picture that can be read.")
    picture = np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
    drawn = draw_areas(picture, here.zones, (40, 200, 60))
    drawn = draw_areas(drawn, here.masks, (220, 40, 40))
    output.write_bytes(to_jpeg(drawn))
    print(f"wrote {output}", flush=True)
