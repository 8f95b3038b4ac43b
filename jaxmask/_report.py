"""The report that every check of the library returns."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

F = TypeVar("F")


@dataclass(frozen=True)
class Report(Generic[F]):
    """What a check tried and what it found; `str()` of it is the text.

    Attributes:
      name: the function that was checked.
      findings: one entry for each difference, with a text; empty if the check found none.
      tried: what was tried.
      not_tested: what could not be tried, and why.
      text: all of that for people to read.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.arange(1.0, 7).reshape(1, 6), jnp.arange(6)[None] < 4
      >>> report = jm.leak.check(jm.pool.mean, x, mask)
      >>> report.ok, str(report).splitlines()[0]
      (True, 'leak.check of function `mean`: no leak found.')
      >>> def f(row):
      ...     return row * 2 if str(row.shape[0]) == "2" else row
      >>> print(jm.ragged_vmap(f).check(*jm.pad_sequences([[1.0, 2.0, 3.0], [4.0]])))
      ragged_vmap(function `f`).check: it differs from the row alone.
      - value at length 2: expected 2, got 1
      - gradient of argument 0 at length 2: expected 1.08, got 0.54
      Compared at length 1, length 2, length 3.
    """

    name: str
    findings: tuple[F, ...]
    tried: tuple[str, ...]
    not_tested: tuple[str, ...] = ()
    text: str = field(default="", repr=False)

    @property
    def ok(self) -> bool:
        """Whether the check found nothing in what it tried."""
        return not self.findings

    def __str__(self) -> str:
        return self.text


def once_fixed(names: Iterable[str]) -> str:
    """That the code of layers is not judged while layers inside them let padding in."""
    unique = list(dict.fromkeys(f"`{name}`" for name in names))
    more = f" and {len(unique) - 5} more" if len(unique) > 5 else ""
    itself = "itself" if len(unique) == 1 else "themselves"
    shown = ", ".join(unique[:5]) + more
    return f"The code of {shown} {itself} is judged once these are fixed: run again."
