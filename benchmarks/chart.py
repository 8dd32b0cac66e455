"""A chart of what `python -m benchmarks --json` wrote, as SVG: times the plain loop, with spread.

usage: python -m benchmarks.chart FILE.json [FILE.json ...] > docs/images/bench.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_NAMES = {
    "fast": "PRESET=fast",
    "default": "default",
    "parity": "parity",
    "successor": "successor's loop",
    "plain": "plain loop",
}
_LEFT, _WIDTH, _ROW, _HEAD = 150, 620, 24, 30
_COLOURS = {"fast": "#1a7f5a", "default": "#2f6fb0", "parity": "#6b8fb5"}
_OTHERS = "#9a9a9a"


def chart(measured: list[dict[str, Any]]) -> str:
    """The SVG; a group of bars for each clip of each file."""
    groups = [
        (f"{each['name']}, n = {each['frames']}, {clip['clip']}", clip["rows"])
        for each in measured
        for clip in each["clips"]
    ]
    longest = max(row["x_plain_max"] for _, rows in groups for row in rows.values())
    per_x = (_WIDTH - _LEFT - 120) / longest
    parts: list[str] = []
    y = 0
    for title, rows in groups:
        parts.append(f'<text x="0" y="{y + 18}" font-weight="bold">{title}</text>')
        y += _HEAD
        for name, label in _NAMES.items():
            if name not in rows:
                continue
            parts += _bar(label, _COLOURS.get(name, _OTHERS), rows[name], y, per_x)
            y += _ROW
        y += 10
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" '
        'font-family="sans-serif" font-size="13" fill="#444">'
        "<title>Recordings a second, as times the plain loop</title>"
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _bar(label: str, colour: str, row: dict[str, float], y: int, per_x: float) -> list[str]:
    value, low, high = row["x_plain"], row["x_plain_min"], row["x_plain_max"]
    middle = y + _ROW // 2 - 2
    return [
        f'<text x="{_LEFT - 8}" y="{middle + 5}" text-anchor="end">{label}</text>',
        (
            f'<rect x="{_LEFT}" y="{y + 2}" width="{value * per_x:.1f}" height="{_ROW - 8}" '
            f'fill="{colour}"/>'
        ),
        (
            f'<line x1="{_LEFT + low * per_x:.1f}" x2="{_LEFT + high * per_x:.1f}" y1="{middle}" '
            f'y2="{middle}" stroke="#222" stroke-width="1.5"/>'
        ),
        (
            f'<text x="{_LEFT + high * per_x + 6:.1f}" y="{middle + 5}">{value:.1f}x, '
            f"{row['recordings_per_hour']:,.0f} an hour</text>"
        ),
    ]


if __name__ == "__main__":
    sys.stdout.write(chart([json.loads(Path(name).read_text()) for name in sys.argv[1:]]))
