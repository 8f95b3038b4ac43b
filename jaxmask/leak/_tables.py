"""Ids outside the table of an `nnx.Embed`, for which it gives nan."""

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from jaxmask.leak._findings import Finding, Witness
from jaxmask.leak._proof.causes import Place


class Tables:
    """Tells findings that only ids outside of a table show.

    Attributes:
      rows: of each table that a function holds or closes over.
      outside: what was done to the padding where it held such ids.
    """

    def __init__(self, fn: Any):
        self.rows: list[int] = []
        self.outside: set[str] = set()
        if "flax.nnx" in sys.modules:  # else there is no table, and Flax need not be imported
            from jaxmask import _nnx

            self.rows = _nnx.table_rows(fn)

    def note(self, under: str, x: list[np.ndarray], real: np.ndarray) -> None:
        """Remember a content of the padding that holds ids outside of a table."""
        for leaf in x if self.rows else ():
            ids = leaf[~real]
            # From the end, -1 is the last row.
            if ids.dtype.kind in "iu" and ((ids >= self.rows[0]) | (ids < -self.rows[0])).any():
                self.outside.add(under)

    def apart(self, witnesses: Iterable[Witness]) -> tuple[tuple[Witness, ...], ...]:
        """The witnesses of arrays that no other content of the padding changed, and the rest."""
        every = list(witnesses)
        changed = {
            (w.what, w.where) for w in every if _is_of_contents(w) and not self._is_outside(w)
        }
        outside = [w for w in every if self._is_outside(w) and (w.what, w.where) not in changed]
        if all(w.of_gradient for w in outside) and not all(w.of_gradient for w in every):
            outside = []  # gradients follow their values
        return tuple(outside), tuple(w for w in every if w not in outside)

    def explain(
        self, findings: Iterable[Finding], witnesses: Iterable[Witness], lookup: Place | None
    ) -> tuple[Finding, ...]:
        """The findings in words of the table, with the line of its `lookup` where it is known.

        Those that reach none of the arrays of `witnesses` have been found without the table.
        """
        arrays = {witness.where for witness in witnesses}
        found: dict[Any, Finding] = {}
        for finding in findings:
            if finding.reaches and arrays.isdisjoint(finding.reaches):
                continue
            place = lookup or finding.place
            found.setdefault(place, replace(finding, what=self._what, mend=MEND, place=place))
        return tuple(found.values())

    def _is_outside(self, witness: Witness) -> bool:
        changed_most = witness.difference == float("inf") or witness.of_gradient
        return witness.under in self.outside and changed_most

    @property
    def _what(self) -> str:
        rows = " or ".join(map(str, self.rows))
        return (
            f"only ids outside the table of `nnx.Embed` ({rows} rows), which are nan there, do this"
        )


def _is_of_contents(witness: Witness) -> bool:
    """Whether two contents of one layout differ, and not two layouts."""
    return witness.under.endswith(("in the padding", "the padding as given"))


MEND = "Use `jm.nn.Embed` and call it with the mask, `embed(ids, mask)`, or clip the ids."
