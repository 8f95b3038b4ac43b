"""What `leak.check` found, and its text."""

from dataclasses import dataclass

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
class Finding:
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
      >>> print(Finding("value", "output[0]", "nan in the padding", "", (0,), 1.0, float("nan")))
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

    def __str__(self) -> str:
        subject = SUBJECTS.get(self.what, "{}").format(self.where)
        if self.text:
            return f"{subject}: {self.text}" + (f", under {self.under}" if self.under else "")
        at = f" at {self.index}" if self.index else ""
        numbers = f"expected {_short(self.expected)}, got {_short(self.got)}"
        return f"{subject}{at}: {numbers}, under {self.under}"


SUBJECTS = {
    "value": "value of {}",
    "mask": "mask {}",
    "gradient in x": "gradient in {}",
    "gradient in x at padding": "gradient at padding in {}",
    "gradient in params": "gradient in {}",
}


def text_of(
    name: str, findings: tuple[Finding, ...], tried: tuple[str, ...], not_tested: tuple[str, ...]
) -> str:
    """The text of a report."""
    lines = [f"leak.check of {name}: {'padding leaks' if findings else 'no leak found'}."]
    for group in _groups(findings):
        lines.append(f"- {group[0]}")
        if len(group) > 1:
            lines.append(f"  Also under: {_listed([f.under for f in group[1:]])}.")
        lines.append(f"  {_hint(group, findings)}")
    lines += [f"  {line}" for line in tried]
    lines += [f"  not tested: {line}" for line in not_tested]
    if not findings:
        lines.append("  This holds for these shapes, this mask and what was tried.")
    return "\n".join(lines)


RANK = {"output": 0, "mask": 1, "value": 2, "statistics": 3}


def _groups(findings: tuple[Finding, ...]) -> list[list[Finding]]:
    """The findings by array, in each the most informative one first."""
    found: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        found.setdefault((finding.what, finding.where), []).append(finding)
    # A finite change says more than nan.
    groups = [sorted(g, key=lambda f: f.difference == float("inf")) for g in found.values()]
    # Gradients last: if a value is wrong, so is its gradient.
    return sorted(groups, key=lambda g: RANK.get(g[0].what, len(RANK)))


def _listed(names: list[str], most: int = 6) -> str:
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - most} more" if len(unique) > most else ""
    return "; ".join(unique[:most]) + more


def _short(value: complex) -> str:
    return f"{value:.6g}"


def _hint(group: list[Finding], findings: tuple[Finding, ...]) -> str:
    first, moves = group[0], [finding.move for finding in group]
    if first.what == "output":
        return HINTS["output"]
    if first.what.startswith("gradient"):
        return HINTS[_gradient_hint(first, findings)]
    if first.unmasked:
        return HINTS["unmasked"]
    if first.what == "mask" and moves[0] in ("", "append"):
        return HINTS["mask"]
    if "" not in moves:
        return HINTS[moves[0]]
    if all(f.under.startswith(BY_OPERATION) for f in group):
        return HINTS["barriers"]
    contents = {f.under.split(", ")[-1].removesuffix(" in the padding") for f in group}
    return HINTS["multiply" if contents <= NON_FINITE else "value"]


def _gradient_hint(first: Finding, findings: tuple[Finding, ...]) -> str:
    if any(not finding.what.startswith("gradient") for finding in findings):
        return "follows"
    if first.under.startswith(BY_OPERATION):
        return "barriers"
    return "gradient" if first.difference == float("inf") else "backward"


HINTS = {
    "value": (
        "Padding takes part in the result. Before anything mixes steps, replace it by the identity "
        "of what follows, `jm.ops.fill(x, mask, value)`, or use `jm.pool` and `jm.ops`."
    ),
    "multiply": (
        "Finite padding is ignored, nan and inf are not: 0 * nan is nan. Select instead of "
        "multiplying: `jnp.where(mask, x, 0)`, or `jm.ops.fill(x, mask)`."
    ),
    "barriers": (
        "This is right only because XLA turned a product with a mask into a select; elsewhere it "
        "may remain a product, and 0 * nan is nan. Select instead of multiplying: "
        "`jnp.where(mask, x, 0)`, or `jm.ops.fill(x, mask)`."
    ),
    "gradient": (
        "The value is right. Masking the result is not enough for its gradient: nan times a zero "
        "cotangent is nan. Replace the padding before the function runs: "
        "`jm.ops.each_step(f, x, mask)` shows `f` copies of real steps."
    ),
    "backward": (
        "The value is right and its gradient is not: look for a `custom_vjp` whose backward pass "
        "ignores the mask, or for padding that cancels out in the value only."
    ),
    "follows": "Fix the value first: its gradient follows.",
    "mask": (
        "A mask is made from the mask that came in, never from values in the padding or from the "
        "padded length."
    ),
    "unmasked": (
        "No mask came with this array, so every entry counts. Return the pair `(y, mask)` if some "
        "of it is padding; if not, padding takes part in it: `jm.ops.fill(x, mask)` first."
    ),
    "output": (
        "In a tuple `(values, boolean mask)` entries count where the mask is True; of any other "
        "array all count. See `jm.leak.check`."
    ),
    "append": (
        "The result depends on the padded length. Count real steps (`mask.sum(1)`, "
        "`jm.masks.positions`), not `x.shape[1]`; a window or stride must not start from the "
        "padded end."
    ),
    "segments": (
        "Sequences of a packed row see each other. Separate them by their ids: "
        "`jm.masks.same_segment`, or `jm.pool` and `jm.ops` with `Segments` in place of the mask."
    ),
    "left": (
        "The result depends on where in the row the real steps are. Use `jm.masks.positions(mask)` "
        "for positions, or `jm.ops.compact(x, mask)` first."
    ),
    "holes": (
        "Padding between real steps is not skipped: a mask is not a length. Use "
        "`jm.masks.positions(mask)`, or `jm.ops.compact(x, mask)` first."
    ),
    "empty": (
        "A row without a real step must give 0 and False, and change no other row: guard the "
        "division (`jnp.maximum(count, 1)`) and replace the maximum of nothing."
    ),
    "permute": (
        "The result of a row depends on other rows or on its index in the batch. Batch statistics "
        "do so by definition; anything else mixes the batch axis."
    ),
}
