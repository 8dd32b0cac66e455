"""What this process holds open, by what it is: a number that is given twice does not mislead.

Counting descriptors is not enough. What an earlier test left to the garbage collector may be closed
at any moment, and would hide as many that are really left behind, or look like a difference.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

OpenFiles = Counter[tuple[str, int, int]]


def open_files() -> OpenFiles:
    """How many descriptors lead to what: (where the link points, device, inode).

    The link tells kinds apart that share an inode, such as event polls; the inode tells apart what
    has one name, such as memory files.
    """
    found: OpenFiles = Counter()
    for link in list(Path("/proc/self/fd").iterdir()):
        try:
            target, status = link.readlink(), link.stat()
        except OSError:
            continue  # closed meanwhile, as is the one that the list was read from
        found[str(target), status.st_dev, status.st_ino] += 1
    return found


def opened_since(before: OpenFiles) -> list[str]:
    """What is open now and was not `before`, as sentences of a failed test show it."""
    return sorted(target for target, *_ in (open_files() - before).elements())
