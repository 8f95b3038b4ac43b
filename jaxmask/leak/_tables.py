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

    def explain(
        self,
        findings: tuple[Finding, ...],
        witnesses: Iterable[Witness],
        lookup: Place | None,
    ) -> tuple[Finding, ...]:
        """The findings, in words of the table and with the line of its `lookup` where nothing else
        shows them.
        """
        every = list(witnesses)
        found: dict[Any, Finding] = {}
        for finding in findings:
            if all(map(self._is_outside, finding.witnesses or every)):
                place = lookup or finding.place
                finding = replace(finding, what=self._what, mend=MEND, place=place)
            found.setdefault((finding.place, finding.what), finding)
        return tuple(found.values())

    def _is_outside(self, witness: Witness) -> bool:
        return witness.under in self.outside and witness.difference == float("inf")

    @property
    def _what(self) -> str:
        rows = " or ".join(map(str, self.rows))
        return (
            f"only ids outside the table of `nnx.Embed` ({rows} rows), which are nan there, do this"
        )


MEND = "Use `jm.nn.Embed`, or clip the ids."
