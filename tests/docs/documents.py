"""Reading the documents: pages, links, and the blocks of code in them.

A fenced block is executed when its language is `console` or `python`. A comment right above it says
what is special: `<!-- test: exit 2 -->`, `slow`, `broker`, `settings`, `not run, WHY`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(
    r"(?:^<!-- test: (?P<remark>[^\n]*?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[[^\]\[]*\]\(<?([^)\s>]+)>?\)")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        page: where it is, relative to the root.
        line: of its first line, from 1.
        language: after the fence.
        text: between the fences.
        remark: of the comment above; '' without one.
    """

    page: str
    line: int
    language: str
    text: str
    remark: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def exit_code(self) -> int:
        match = re.fullmatch(r"exit (\d+)", self.remark)
        return int(match[1]) if match else 0


def pages() -> list[Path]:
    """Every document of ours."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks() -> Iterator[Block]:
    for page in pages():
        text = page.read_text()
        for match in _FENCE.finditer(text):
            yield Block(
                page=str(page.relative_to(ROOT)),
                line=text.count("\n", 0, match.start("text")),
                language=match["language"],
                text=match["text"],
                remark=match["remark"] or "",
            )


def links(page: Path) -> list[str]:
    """Targets of the links of a page that stay in this repository."""
    targets = _LINK.findall(_CODE.sub("", page.read_text()))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """What a link may name after `#`, as code hosts make it from headings."""
    headings = re.findall(r"^#+ (.+)$", _CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        elif found:
            found[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in found]


def fits(shown: str, actual: str) -> bool:
    """Whether the shown output is the actual one; `...` stands for anything."""
    parts = [re.escape(part) for part in shown.strip().split("...")]
    return re.fullmatch(".*".join(parts), actual.strip(), re.DOTALL) is not None
