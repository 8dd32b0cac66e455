"""`Objects`: what is known of the objects of a recording, all of them side by side.

One table holds a column each, so that to pick some, to bring them up to date and to put them back
is one step for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vault_ml.tracking import boxes as of_boxes
from vault_ml.tracking.boxes import Boxes, Colours
from vault_ml.tracking.motion import BOX_VAR, PLACE_VAR, Floats, Motion
from vault_ml.tracking.motion import ROWS as _MOTION
from vault_ml.tracking.pairs import Whole

# How much of an object's description a new box replaces.
_COLOURS_RENEWED = 0.3
# At first as many things stand as move. A step tells one from the other.
_FIRST_STILL = 0.5
_LEAST_STILL, _MOST_STILL = 0.02, 0.98
_RENEWED = 0.4

# Rows of the table, after those of `Motion`.
LOOKS = slice(_MOTION, _MOTION + 4)
LOG_MOVES, LOG_STANDS, _STANDS, SEEN_AT, _ROWS = range(_MOTION + 4, _MOTION + 9)
# All of them that a pair is weighed by: variances, looks, probabilities.
WEIGHED = slice(PLACE_VAR, LOG_STANDS + 1)
SPREADS = slice(PLACE_VAR, BOX_VAR + 1)


@dataclass(slots=True)
class Objects:
    """What is known of n objects: a column each.

    Attributes:
        id: (n,).
        class_id: (n,), as they were last seen.
        table: (17, n): `Motion` now; x and y of the centre where each was last seen, frame pixels,
            and logarithms of width and height; logarithms of how probable it is that each moves,
            and that it stands, and the latter itself; when it was last seen, seconds.
        colours: (n, d) over all times; None where no picture is at hand.
    """

    id: Whole
    class_id: NDArray[np.int64]
    table: Floats
    colours: Colours | None

    @classmethod
    def begun(cls, first_id: int, boxes: Boxes, columns: Whole, now: float) -> Objects:
        """Those that are seen for the first time, in some boxes of a frame."""
        box = boxes.table.take(columns, axis=1)
        table = np.empty((_ROWS, len(columns)))
        motion = Motion.at_rest(box[of_boxes.CENTRE], box[of_boxes.AREA])
        table[:_MOTION] = motion.table
        table[LOOKS] = box[of_boxes.LOOKS]
        table[_STANDS] = _FIRST_STILL
        table[LOG_STANDS], table[LOG_MOVES] = math.log(_FIRST_STILL), math.log1p(-_FIRST_STILL)
        table[SEEN_AT] = now
        colours = None if boxes.colours is None else boxes.colours.take(columns, axis=0)
        ids = np.arange(first_id, first_id + len(columns))
        return cls(ids, boxes.class_id[columns], table, colours)

    @property
    def motion(self) -> Motion:
        """A view: what is done to it is done to the table."""
        return Motion(self.table[:_MOTION])

    def at(self, columns: Whole) -> Objects:
        """Some of them."""
        colours = None if self.colours is None else self.colours.take(columns, axis=0)
        table = self.table.take(columns, axis=1)
        return Objects(self.id[columns], self.class_id[columns], table, colours)

    def and_then(self, more: Objects) -> Objects:
        """Them, and others after them."""
        colours: Colours | None = None
        if self.colours is not None and more.colours is not None:
            colours = np.concatenate([self.colours, more.colours])
        return Objects(
            np.concatenate([self.id, more.id]),
            np.concatenate([self.class_id, more.class_id]),
            np.concatenate([self.table, more.table], axis=1),
            colours,
        )

    def renew(self, rows: Whole, boxes: Boxes, columns: Whole, now: float) -> None:
        """Bring the objects in `rows` up to the boxes in `columns` of a frame at `now`."""
        mine, box = self.table.take(rows, axis=1), boxes.table.take(columns, axis=1)
        area = box[of_boxes.AREA]
        off = box[of_boxes.CENTRE] - mine[LOOKS][:2]
        off *= off
        # A step of a third of a length is one; below a tenth a box only trembles.
        moves = np.sqrt((off[0] + off[1]) / area)
        moves -= 0.1
        moves /= 0.2
        np.minimum(np.maximum(moves, 0.0, out=moves), 1.0, out=moves)
        stands = (1 - _RENEWED) * mine[_STANDS] + _RENEWED * (1 - moves)
        np.minimum(np.maximum(stands, _LEAST_STILL, out=stands), _MOST_STILL, out=mine[_STANDS])
        np.log(mine[_STANDS], out=mine[LOG_STANDS])
        np.log1p(-mine[_STANDS], out=mine[LOG_MOVES])
        Motion(mine[:_MOTION]).correct(box[of_boxes.CENTRE], area, box[of_boxes.BOX_VAR])
        mine[LOOKS] = box[of_boxes.LOOKS]
        mine[SEEN_AT] = now
        self.table[:, rows] = mine
        self.class_id[rows] = boxes.class_id[columns]
        if self.colours is not None and boxes.colours is not None:
            mixed = self.colours.take(rows, axis=0)
            mixed *= (1 - _COLOURS_RENEWED) / _COLOURS_RENEWED
            mixed += boxes.colours.take(columns, axis=0)
            mixed /= np.sqrt(np.einsum("ij,ij->i", mixed, mixed))[:, None]
            self.colours[rows] = mixed
