"""What `leak.check` found, and its text."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from jaxmask._report import Report
from jaxmask.leak._layouts import MOVES
from jaxmask.leak._proof.causes import Place
from jaxmask.leak._proof.proof import ClaimReport, in_lines, more_params, source_of

Locate: TypeAlias = "Callable[[str, list[Witness]], list[Finding]]"
NON_FINITE = {"nan", "inf", "-inf"}
BY_OPERATION = "operation by operation"  # begins `under` where only the program with barriers leaks


class LeakError(AssertionError):
    """Padding leaks; the text is that of the `Report`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.arange(1.0, 7).reshape(1, 6), jnp.arange(6)[None] < 4
      >>> try:
      ...     jm.leak.assert_padding_invariant(lambda x, m: (x.mean(1), m.any(1)), x, mask)
      ... except LeakError as error:
      ...     print(str(error).splitlines()[0])
      leak.check of function `<lambda>`: padding leaks.
    """


@dataclass(frozen=True)
class Witness:
    """An array that padding changed, at the entry that changed most.

    Attributes:
      what: "value", "mask", "statistics", "gradient in x", "gradient in x at padding",
        "gradient in params" or "output".
      where: the path of the array, as in an index expression.
      under: what was done to the padding.
      move: "" at the given shape, "append", "segments", or a name from `moves`.
      index: of the entry, in the layout that was given.
      expected: its value with harmless padding.
      got: its value here.
      difference: the distance between the two; inf if only one of them is nan.
      text: what is wrong, if it is not a value.
      unmasked: whether the array has a time axis and no mask, so that every entry counts.

    Example:
      >>> print(Witness("value", "output[0]", "nan in the padding", "", (0,), 1.0, float("nan")))
      value of output[0] at (0,): expected 1, got nan, under nan in the padding
    """

    what: str
    where: str
    under: str
    move: str
    index: tuple[int, ...] | None = None
    expected: complex = 0.0
    got: complex = 0.0
    difference: float = float("inf")
    text: str = ""
    unmasked: bool = False

    @property
    def of_gradient(self) -> bool:
        """Whether it is a gradient that changed."""
        return self.what.startswith("gradient")

    @property
    def is_compared(self) -> bool:
        """Whether what is expected comes from another run, and not from a rule."""
        return not (self.text or self.move == "empty" or self.what == "gradient in x at padding")

    def __str__(self) -> str:
        subject = SUBJECTS.get(self.what, "{}").format(self.where)
        if self.text:
            return f"{subject}: {self.text}" + (f", under {self.under}" if self.under else "")
        at = f" at {self.index}" if self.index else ""
        numbers = f"expected {_short(self.expected)}, got {_short(self.got)}"
        return f"{subject}{at}: {numbers}, under {self.under}"


@dataclass(frozen=True)
class Finding:
    """One mistake: an operation that lets padding in, or a way in which results depend on it.

    Attributes:
      what: in words.
      mend: what to do instead.
      place: the line of the user's code; None where it could not be found.
      moved: how far this mistake alone moves the results.
      reaches: the paths of these results.
      witnesses: the arrays that changed; empty where those of another finding show it too.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.arange(1.0, 7).reshape(1, 6), jnp.arange(6)[None] < 4
      >>> (finding,) = jm.leak.check(lambda x, mask: (x.max(1), mask.any(1)), x, mask).findings
      >>> finding.what
      'an extreme over an axis with padding'
    """

    what: str
    mend: str
    place: Place | None = None
    moved: str = ""
    reaches: tuple[str, ...] = ()
    witnesses: tuple[Witness, ...] = ()

    def __str__(self) -> str:
        at = f"{self.place}{source_of(self.place)}: " if self.place else ""
        moved = f"; alone it moves {self.moved}" if self.moved else ""
        return f"{at}{self.what[:1].upper()}{self.what[1:]}{moved}. {self.mend}"


@dataclass(frozen=True)
class LeakReport(Report[Finding]):
    """What `leak.check` proved, tried and found; `str()` of it is the text.

    Attributes:
      name: the function that was checked.
      findings: one for each mistake; empty if none was found.
      tried: what was tried.
      not_tested: what could not be tried, and why.
      text: all of that for people to read.
      proved: the results that were proved, at the given shapes and mask.
      undecided: the results that were neither proved nor seen to change.
      witnesses: each array that changed, with what was done to the padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.arange(1.0, 7).reshape(1, 6), jnp.arange(6)[None] < 4
      >>> report = jm.leak.check(jm.pool.mean, x, mask)
      >>> report.ok, len(report.proved), report.undecided
      (True, 4, ())
    """

    proved: tuple[ClaimReport, ...] = ()
    undecided: tuple[ClaimReport, ...] = ()
    witnesses: tuple[Witness, ...] = ()


SUBJECTS = {
    "value": "value of {}",
    "mask": "mask {}",
    "gradient in x": "gradient in {}",
    "gradient in x at padding": "gradient at padding in {}",
    "gradient in params": "gradient in {}",
}


def findings_of(witnesses: tuple[Witness, ...], locate: Locate) -> tuple[Finding, ...]:
    """One finding for each mistake: those with a line, and what these do not explain.

    A gradient follows its value, and what is seen at the given shape is seen at others too.
    """
    values = [witness for witness in witnesses if not witness.of_gradient]
    by_array = _by_array(values or list(witnesses))
    found: dict[Any, Finding] = {}
    for move in ("", "append", *MOVES, "segments"):
        groups = [group for group in by_array.values() if group[0].move == move]
        if not groups:
            continue
        located = locate(move, [w for group in groups for w in group if w.move == move])
        explained = {name for finding in located for name in finding.reaches}
        left = [group for group in groups if group[0].where not in explained]
        for finding in (*located, *_by_hint(left)):
            found.setdefault(finding.place or finding.what, finding)
    return tuple(found.values())


def _by_array(witnesses: list[Witness]) -> dict[tuple[str, str], list[Witness]]:
    """The witnesses by array, in each those of the given shape and of finite numbers first."""
    found: dict[tuple[str, str], list[Witness]] = {}
    for witness in witnesses:
        found.setdefault((witness.what, witness.where), []).append(witness)
    order = ("", "append", *MOVES, "segments").index
    for group in found.values():
        group.sort(key=lambda w: (order(w.move), w.difference == float("inf")))
    return dict(sorted(found.items(), key=lambda item: RANK.get(item[0][0], len(RANK))))


def _by_hint(groups: list[list[Witness]]) -> list[Finding]:
    """A finding for each kind of change."""
    found: dict[str, list[Witness]] = {}
    for group in groups:
        found.setdefault(hint_of(group), []).extend(group)
    return [Finding(*HINTS[hint], witnesses=tuple(group)) for hint, group in found.items()]


def text_of(report: LeakReport) -> str:
    """The text of a report."""
    verdict = "padding leaks" if report.findings else "no leak found"
    lines = [f"leak.check of {report.name}: {verdict}."]
    for finding in report.findings:
        lines.append(f"- {finding}")
        lines += [f"  {line}" for line in _seen(finding.witnesses)]
    if any(w.is_compared for finding in report.findings for w in finding.witnesses):
        lines.append(f"  expected: {REFERENCE}")
    lines += [f"  undecided: {line}" for line in in_lines(report.undecided)]
    if report.proved:
        proved = "; ".join(_proved(report.proved))
        lines.append(f"  proved at the given shape, whatever padding holds: {proved}")
    lines += [f"  {line}" for line in report.tried]
    lines += [f"  not tested: {line}" for line in report.not_tested]
    if report.ok:
        lines.append("  This holds for these shapes, this mask and what was tried.")
    return "\n".join(lines)


def _proved(claims: tuple[ClaimReport, ...]) -> Iterator[str]:
    """The claims by what they speak of; parameters are counted where they are many."""
    by_what: dict[str, list[str]] = {}
    for claim in sorted(claims, key=lambda claim: RANK.get(claim.what, len(RANK))):
        by_what.setdefault(claim.what, []).append(claim.where)
    for what, places in by_what.items():
        unique = list(dict.fromkeys(places))
        if what == "gradient in params" and len(unique) > 3:
            yield f"gradients in {len(unique)} parameters"
        else:
            yield f"{what} of {', '.join(unique)}"


REFERENCE = "in the reference run, whose padding holds copies of the first real step of each row"


def _seen(witnesses: tuple[Witness, ...]) -> Iterator[str]:
    groups = _by_array(list(witnesses))
    params = [key for key in groups if key[0] == "gradient in params"]
    for key, group in groups.items():
        if key in params[1:]:
            continue
        yield f"seen: {group[0]}{more_params(len(params) - 1) if key in params else ''}"
        if len(group) > 1:
            yield f"  also under: {_listed([w.under for w in group[1:]])}"


RANK = {"output": 0, "mask": 1, "value": 2, "statistics": 3}


def _listed(names: list[str], most: int = 6) -> str:
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - most} more" if len(unique) > most else ""
    return "; ".join(unique[:most]) + more


def _short(value: complex) -> str:
    return f"{value:.6g}"


def hint_of(group: list[Witness]) -> str:
    """The findings about the changes of one array."""
    first, moves = group[0], [witness.move for witness in group]
    if first.what == "output":
        return "output"
    if first.of_gradient:
        if all(w.under.startswith(BY_OPERATION) for w in group):
            return "barriers"
        return "gradient" if first.difference == float("inf") else "backward"
    if first.unmasked:
        return "unmasked"
    if first.what == "mask" and moves[0] in ("", "append"):
        return "mask"
    if "" not in moves:
        return moves[0]
    if all(w.under.startswith(BY_OPERATION) for w in group):
        return "barriers"
    contents = {w.under.split(", ")[-1].removesuffix(" in the padding") for w in group}
    return "multiply" if contents <= NON_FINITE else "value"


HINTS: dict[str, tuple[str, str]] = {
    "value": (
        "padding takes part in the result",
        "Before anything mixes steps, replace it by the identity of what follows, `jm.ops.fill(x, "
        "mask, value)`, or use `jm.pool` and `jm.ops`.",
    ),
    "multiply": (
        "finite padding is ignored, nan and inf are not: 0 * nan is nan",
        "Select instead of multiplying: `jnp.where(mask, x, 0)`, or `jm.ops.fill(x, mask)`.",
    ),
    "barriers": (
        "this is right only because XLA turned a product with a mask into a select; elsewhere it "
        "may remain a product, and 0 * nan is nan",
        "Select instead of multiplying: `jnp.where(mask, x, 0)`, or `jm.ops.fill(x, mask)`.",
    ),
    "gradient": (
        "the value is right and its gradient is not: nan times a zero cotangent is nan",
        "Masking the result is not enough. Replace the padding before the function runs: "
        "`jm.ops.each_step(f, x, mask)` shows `f` copies of real steps.",
    ),
    "backward": (
        "the value is right and its gradient is not",
        "Look for a `custom_vjp` whose backward pass ignores the mask, or for padding that cancels"
        " out in the value only.",
    ),
    "mask": (
        "a mask depends on padding",
        "A mask is made from the mask that came in, never from values in the padding or from the "
        "padded length.",
    ),
    "unmasked": (
        "no mask came with this array, so every entry counts",
        "Return the pair `(y, mask)` if some of it is padding; if not, padding takes part in it: "
        "`jm.ops.fill(x, mask)` first.",
    ),
    "output": (
        "the output cannot be compared",
        "In a tuple `(values, boolean mask)` entries count where the mask is True; of any other "
        "array all count. See `jm.leak.check`.",
    ),
    "append": (
        "the result depends on the padded length",
        "Count real steps (`mask.sum(1)`, `jm.masks.positions`), not `x.shape[1]`; a window or "
        "stride must not start from the padded end.",
    ),
    "segments": (
        "sequences of a packed row see each other",
        "Separate them by their ids: `jm.masks.same_segment`, or `jm.pool` and `jm.ops` with "
        "`Segments` in place of the mask.",
    ),
    "left": (
        "the result depends on where in the row the real steps are",
        "Use `jm.masks.positions(mask)` for positions, or `jm.ops.compact(x, mask)` first.",
    ),
    "holes": (
        "padding between real steps is not skipped: a mask is not a length",
        "Use `jm.masks.positions(mask)`, or `jm.ops.compact(x, mask)` first. Convolutions and "
        "pools keep the place of a missing step by design: leave `holes` out of `moves` for them.",
    ),
    "empty": (
        "a row without a real step must give 0 and False, and change no other row",
        "Guard the division (`jnp.maximum(count, 1)`) and replace the maximum of nothing.",
    ),
    "permute": (
        "the result of a row depends on other rows or on its index in the batch",
        "Batch statistics do so by definition; anything else mixes the batch axis.",
    ),
}
