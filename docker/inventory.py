#!/usr/bin/env python3
"""What an image holds: `sbom.cdx.json` (CycloneDX 1.6) and `licences.txt`.

    docker/inventory.py FOLDER [--debian /var/lib/dpkg/status]

Run by the Python whose packages are meant. Besides packages it names what scanners of packages do
not see: the FFmpeg libraries inside the wheels of PyAV and OpenCV.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path
from typing import Any

# libavcodec's major version -> FFmpeg's (https://ffmpeg.org/download.html, "versions").
_FFMPEG_OF_AVCODEC = {"58": "4", "59": "5", "60": "6", "61": "7", "62": "8"}
_LIBRARY = re.compile(r"^(lib[a-z0-9+_]+)-[0-9a-f]{8,}\.so\.([0-9.]+)$", re.IGNORECASE)


def python_components() -> Iterator[dict[str, Any]]:
    """A component per installed distribution, with the libraries that its wheel carries."""
    for found in sorted(metadata.distributions(), key=lambda each: each.name.lower()):
        name = re.sub(r"[-_.]+", "-", found.name).lower()
        component: dict[str, Any] = {
            "type": "library",
            "bom-ref": f"pypi-{name}",
            "name": name,
            "version": found.version,
            "purl": f"pkg:pypi/{name}@{found.version}",
            "licenses": [{"license": {"name": licence_of(found)}}],
        }
        carried = list(_carried(found, name))
        if carried:
            component["components"] = carried
        yield component


def licence_of(found: metadata.Distribution) -> str:
    """What a package says of its licence: expression, classifiers, or the first line of a text."""
    meta = found.metadata
    if expression := meta.get("License-Expression"):
        return str(expression)
    classifiers = [
        each.rsplit(" :: ", 1)[-1]
        for each in meta.get_all("Classifier") or []
        if each.startswith("License :: ") and each != "License :: OSI Approved"
    ]
    if classifiers:
        return " AND ".join(sorted(classifiers))
    lines = str(meta.get("License") or "").strip().splitlines()
    return lines[0].strip()[:80] if lines else "not stated"


def _carried(found: metadata.Distribution, owner: str) -> Iterator[dict[str, Any]]:
    """Shared libraries that the wheel brings along, and the FFmpeg they are of."""
    for file in sorted(found.files or [], key=str):
        match = _LIBRARY.match(file.name)
        if match is None:
            continue
        name, version = match.group(1).lower(), match.group(2)
        properties = [{"name": "vault-ml:inside", "value": owner}]
        if name == "libavcodec":
            release = _FFMPEG_OF_AVCODEC.get(version.split(".", 1)[0], "unknown")
            properties.append({"name": "vault-ml:ffmpeg-release", "value": release})
        yield {
            "type": "library",
            "bom-ref": f"{owner}-{file.name}",
            "name": name,
            "version": version,
            "properties": properties,
        }
    if owner == "av" and (version := ffmpeg_of_av()):
        yield {
            "type": "library",
            "bom-ref": "av-ffmpeg",
            "name": "ffmpeg",
            "version": version,
            "purl": f"pkg:generic/ffmpeg@{version}",
            "cpe": f"cpe:2.3:a:ffmpeg:ffmpeg:{version}:*:*:*:*:*:*:*",
            "licenses": [{"license": {"name": "LGPL-2.1-or-later or GPL, as it was configured"}}],
        }


def ffmpeg_of_av() -> str | None:
    """The FFmpeg release inside PyAV, such as `8.0.1`; None where PyAV is not here."""
    try:
        import av
    except ImportError:
        return None
    return str(av.ffmpeg_version_info).removeprefix("n")


def debian_components(status: Path) -> Iterator[dict[str, Any]]:
    """A component per installed package of Debian."""
    for paragraph in status.read_text().split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        if "installed" not in (fields.get("Status") or "").split():
            continue
        name, version = fields["Package"], fields["Version"]
        yield {
            "type": "library",
            "bom-ref": f"deb-{name}",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}",
            "licenses": [{"license": {"name": f"see /usr/share/doc/{name}/copyright"}}],
        }


def document(components: list[dict[str, Any]]) -> dict[str, Any]:
    """The components as a CycloneDX document. No date in it: the same image has the same one."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": "image", "name": "vault-ml"}},
        "components": components,
    }


def main() -> int:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Write an image's SBOM and list of licences.")
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--debian", type=Path, help="dpkg's status file of the image")
    arguments = parser.parse_args()
    components = list(python_components())
    if arguments.debian is not None:
        components += debian_components(arguments.debian)
    sbom = json.dumps(document(components), indent=1, ensure_ascii=False) + "\n"
    (arguments.folder / "sbom.cdx.json").write_text(sbom)
    lines = [
        f"{each['name']} {each['version']}: {each['licenses'][0]['license']['name']}"
        for each in components
    ]
    (arguments.folder / "licences.txt").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
