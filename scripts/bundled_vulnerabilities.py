"""Looks for known vulnerabilities in libraries that come inside PyAV's wheel.

Tools that read lists of packages see `av`, and not the FFmpeg in it. This asks OSV
(https://google.github.io/osv.dev/post-v1-query/) about FFmpeg's own version.

    python scripts/bundled_vulnerabilities.py [--osv https://api.osv.dev]

Ends with 0 when nothing is known, 1 when something is, 3 when OSV does not answer.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import av
import httpx

REPOSITORY = "https://git.ffmpeg.org/ffmpeg.git"


def known(osv: str, version: str) -> list[dict[str, Any]]:
    """What OSV knows against FFmpeg `version`.

    Raises:
        httpx.HTTPError: it does not answer, or not with 200.
    """
    found: list[dict[str, Any]] = []
    question: dict[str, Any] = {
        "package": {"name": REPOSITORY, "ecosystem": "GIT"},
        "version": f"n{version}",
    }
    while True:
        reply = httpx.post(f"{osv}/v1/query", json=question, timeout=60)
        reply.raise_for_status()
        page = reply.json()
        found += page.get("vulns", [])
        if not page.get("next_page_token"):
            return found
        question["page_token"] = page["next_page_token"]


def main() -> int:
    """Ask, and say what is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--osv", default="https://api.osv.dev", help="address of OSV's API")
    osv = parser.parse_args().osv
    version = av.ffmpeg_version_info
    try:
        vulnerabilities = known(osv, version)
    except (httpx.HTTPError, ValueError) as error:
        print(f"{osv} gave no answer about FFmpeg: {type(error).__name__}", file=sys.stderr)
        return 3
    for each in vulnerabilities:
        aliases = ", ".join(each.get("aliases", []))
        print(f"FFmpeg {version} in av {av.__version__}: {each['id']} {aliases}".rstrip())
    if not vulnerabilities:
        print(f"FFmpeg {version} in av {av.__version__}: OSV knows of nothing")
    return 1 if vulnerabilities else 0


if __name__ == "__main__":
    sys.exit(main())
