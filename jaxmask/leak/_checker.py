"""`leak.check`: run a function on one layout after another, and compare."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxmask import _check
from jaxmask._report import Report
from jaxmask._types import PyTree
from jaxmask.leak._findings import BY_OPERATION, Finding, LeakError, text_of
from jaxmask.leak._layouts import MOVES, Layout, layouts
from jaxmask.leak._outputs import attributable, is_inexact
from jaxmask.leak._padding import Padding, copies, is_constant, paddings, plausible
from jaxmask.leak._program import Program, Result, first_line
from jaxmask.leak._proof.prove import prove
from jaxmask.leak._reading import Part, difference, emptiness, no_gradient, parts, with_tolerance
from jaxmask.leak._scope import misshapen, scope
from jaxmask.leak._subject import WHERE, Subject, make_subject


def check(
    fn: Any, x: PyTree, mask: Any, *, moves: tuple[str, ...] = (), params: PyTree = None
) -> Report[Finding]:
    """Test whether padding changes the results of a function, in value or in gradient.

    The padding is filled with nan, infinities, huge and ordinary values, sentinels such as 0 and
    -1, and copies of real steps; 1, 2 and 3 steps of padding are appended on the right, and as many
    as the input has. Values and masks at real steps must not change. Nor must the gradients for a
    fixed random cotangent at real steps, in `x` at real steps and in the parameters; in `x` at
    padded steps they must be 0 while the padding is finite and of unit scale.

    XLA may hide a leak: under jit it turns a product with a mask into a select, so that nan stays
    in the padding; in another program, or op by op, it spreads. So every content of the
    padding is tried in two programs, and a leak in either is reported: compiled whole, as XLA
    optimises it by default (on CPU without LLVM's optimisations, which do not change what is
    computed), and, at the smallest shape with padding, with a barrier after each operation, also
    within loops, branches and backward passes (not within Pallas kernels and foreign calls).

    At the same shape results must agree bit for bit. Between shapes each entry may differ by

        4 * spread + 4 ε |entry|

    where ε is that of its type, and `spread` is how far the entry moves at most in twelve runs in
    which the result of each rounding operation moves by up to two units in the last place at
    random. Matrix products run at the highest precision unless JAX is configured otherwise.

    This is a test and not a proof. It does not cover: padding beyond twice the length (buckets,
    blocks); leaks that only other real values show (a maximum that takes 0 for padding is right if
    all of `x` is above 0, so include both signs); second derivatives and forward mode; state of a
    module other than batch statistics; results that are wrong for any padding; changes below the
    tolerance.

    Args:
      fn: any function that `jax.jit` can trace, from jaxmask or not: `fn(x, mask)`, or
        `fn(params, x, mask)` with `params`, or an `nnx.Module` called as `module(x, mask)`, whose
        parameters are `params` and whose batch statistics after the call are one more result. The
        module itself does not change. Arrays that `fn` closes over are constants.
      x: `[batch, time, ...]`, floating, integer or boolean, or a pytree of such arrays; `[batch,
        ...]` under a row mask. The padding of integers is filled with 0, -1, -100, the lowest and
        the highest integer of the dtype, and values in the range of the real ones.
      mask: `[batch, time]`, boolean; or a row mask `[batch]`, whose padding is rows; or `Segments`,
        in which case each sequence is also checked against the others in its row.
      moves: layouts to try in addition, for functions that promise to take them. `"left"`: padding
        on the left. `"holes"`: padding between real steps. `"empty"`: rows without real steps,
        which must give 0 and False if pooled, else False and finite values, and change no other
        row. `"permute"`: rows in another order, and rows replaced by others, which must change no
        other row.
      params: a pytree of arrays.

    Returns:
      A `Report`: `.ok`, `.findings`, and a text that says what was and was not tried. In a tuple
      `(values, boolean mask)`, anywhere in the output, entries count where the mask is True. Of any
      other array (a loss, a carry) all entries count; with more padding it may grow by zeros only.

    Raises:
      TypeError, ValueError, MaskError: if an argument is not as above, or the mask marks nothing
        as real. Errors of `fn` at the given shapes are raised; at longer ones they are reported as
        not tested.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.arange(1.0, 7).reshape(1, 6), jnp.arange(6)[None] < 4
      >>> jm.leak.check(lambda x, mask: (jnp.where(mask, x, 0).mean(1), mask.any(1)), x, mask).ok
      False
      >>> jm.leak.check(jm.pool.mean, x, mask, moves=("left", "holes", "empty")).ok
      True
    """
    for move in moves:
        _check.choice(move, MOVES, WHERE, "moves")
    subject = make_subject(fn, x, mask, params)
    of_steps = [move for move in moves if move != "permute"]
    if subject.marks.ndim == 1 and of_steps:
        raise ValueError(
            f"{WHERE}: the moves {of_steps} need a mask [batch, time], got a row mask [batch]."
        )
    # The nan and inf in the padding are deliberate.
    with jax.debug_nans(False), jax.debug_infs(False), jax.default_matmul_precision(_precision()):
        report = _Checker(subject).report(tuple(dict.fromkeys(moves)))
    if report.ok:
        return report
    lines = report.text.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("  input: "))
    located = _located(fn, x, mask, params)
    return replace(report, text="\n".join([*lines[:first], *located, *lines[first:]]))


def _located(fn: Any, x: PyTree, mask: Any, params: PyTree) -> Iterator[str]:
    """The operations that let padding in at the given shape, if a proof finds some."""
    try:
        proof = prove(fn, x, mask, params=params, witness=False)
    except Exception:  # no padding at this shape, or a function that is not the same twice
        return
    for cause in proof.blame:
        yield f"  let in by {cause}"


def assert_padding_invariant(
    fn: Any, x: PyTree, mask: Any, *, moves: tuple[str, ...] = (), params: PyTree = None
) -> None:
    """Raise a `LeakError` with the text of the report if `check` finds a leak, for use in tests.

    Args:
      fn: as in `check`.
      x: as in `check`.
      mask: as in `check`.
      moves: as in `check`.
      params: as in `check`.

    Raises:
      LeakError: an `AssertionError`, if padding leaks. Other errors as in `check`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.arange(1.0, 7).reshape(1, 6), jnp.arange(6)[None] < 4
      >>> jm.leak.assert_padding_invariant(jm.ops.softmax, x, mask)
    """
    report = check(fn, x, mask, moves=moves, params=params)
    if not report.ok:
        raise LeakError(str(report))


SAMPLES = 13  # runs that measure rounding: one that rounds as usual, and twelve at random


class _Checker:
    def __init__(self, subject: Subject):
        self.subject = subject
        self.program = _traced(subject)
        self.given = Layout("", "", subject.x.arrays, subject.marks)
        self.batch = len(subject.marks)
        self.findings: list[Finding] = []
        self.notes: dict[str, None] = {}
        self.tried: dict[str, None] = {}
        self.baseline = [copies(leaf, self.given.real) for leaf in subject.x.arrays]
        # Some devices do not sum in the same order twice.
        once, again = (self._read(self.given, self.baseline) for _ in range(2))
        self.repeats = all(difference(a, b, 0.0) is None for a, b in zip(once, again, strict=True))
        self.has_barriers = self._runs_with_barriers()
        self.references: dict[tuple[tuple[int, ...], int, bool], list[Part]] = {}

    def report(self, moves: tuple[str, ...]) -> Report[Finding]:
        self._check_something_is_real()
        padded = False
        for layout in layouts(self.given.x, self.given.marks, self.subject.max_segments, moves):
            examined = self._examine(layout)
            padded |= examined and not layout.real.all()
        self._note_limits_of_x("permute" in moves)
        if not padded:
            notes = "; ".join(self.notes)
            raise ValueError(
                f"{WHERE}: there was nothing to try: the mask has no padding, and none could be "
                f"appended. Give a mask with padding. ({notes})"
            )
        if self.program.why_no_gradients:
            self.notes[f"gradients: {self.program.why_no_gradients}"] = None
        at = self._smallest_with_padding if self.has_barriers else None
        tried = scope(self.program, tuple(self.tried), repeats=self.repeats, barriers_at=at)
        fields = self.subject.name, tuple(self.findings), tuple(tried), tuple(self.notes)
        return Report(*fields, text=text_of(*fields))

    # --------------------------------------------------------------------- one layout

    def _examine(self, layout: Layout) -> bool:
        """Compare a layout with the given one, and all contents of its padding with each other."""
        if not self._runs(layout):
            return False
        given = layout.move == ""
        self._note_unattributable(layout)
        x = [copies(leaf, layout.real) for leaf in layout.x]
        result = self.program.run(layout, x)
        if not given:
            want, got = self._reference(layout), self._parts(layout, result)
            self.findings += self._compared(want, got, layout, layout.name, across=True)
            self.tried[layout.name] = None
        under = layout.name or "copies of real steps in the padding"
        self.findings += _unequal(no_gradient(result, self.subject, layout), layout, under)
        if layout.emptied:
            pairs = emptiness(result, self.subject, layout, self.program.by_row)
            self.findings += _unequal(pairs, layout, under)
        if layout.real.all():
            if given:
                self.notes["padding at the given shape: the mask has none"] = None
            return True
        found = self._poisoned(layout, x)
        if self.has_barriers and layout.marks.shape == self._smallest_with_padding:
            # One finding per array is enough, and the one without barriers says more.
            known = {(finding.what, finding.where) for finding in found}
            more = self._poisoned(layout, x, seed=0)
            found += [finding for finding in more if (finding.what, finding.where) not in known]
        self.findings += found
        return True

    def _poisoned(
        self, layout: Layout, baseline: list[np.ndarray], seed: int | None = None
    ) -> list[Finding]:
        """Differences between each content of the padding and copies of real steps, `baseline`."""
        want = (self._read if self.repeats else self._measured)(layout, baseline, seed)
        found: list[Finding] = []
        for padding in self._contents(layout):
            names = ("" if seed is None else BY_OPERATION, layout.name, padding.name)
            under = ", ".join(filter(None, names))
            result = self.program.run(layout, padding.x, seed)
            got = self._parts(layout, result)
            found += self._compared(want, got, layout, under, across=False)
            if padding.moderate:
                found += _unequal(no_gradient(result, self.subject, layout), layout, under)
        return found

    def _contents(self, layout: Layout) -> Iterator[Padding]:
        if layout.focus:  # all else is real, and a nan in it would reach gradients in parameters
            return iter([plausible(layout.x, layout.real)])
        return paddings(layout.x, layout.real, as_given=layout.move == "")

    @property
    def _smallest_with_padding(self) -> tuple[int, ...]:
        """The only shape that is also compiled with barriers, which doubles the time."""
        marks = self.given.marks
        longer = int(self.given.real.all())
        return (*marks.shape[:-1], marks.shape[-1] + longer)

    def _runs(self, layout: Layout) -> bool:
        """Whether the function takes this shape, and returns the structure of the given shape."""
        try:
            slots = self.program.trace(layout.x, layout.marks)
        except Exception as error:
            self.notes[f"{layout.name}: the function failed with {first_line(error)}"] = None
            return False
        shape = misshapen(self.program.slots, slots)
        if shape:
            finding = Finding("output", "output", layout.name, layout.move, text=shape)
            self.findings.append(finding)
        return not shape

    def _reference(self, layout: Layout) -> list[Part]:
        """The results of the given layout for the same cotangents, with their tolerance."""
        key = (layout.dropped, layout.focus, layout.timed)
        if key not in self.references:
            dropped, focus, timed = key
            same = replace(self.given, dropped=dropped, focus=focus, timed=timed)
            self.references[key] = self._measured(same, self.baseline)
        return self.references[key]

    def _compared(
        self, want: list[Part], got: list[Part], layout: Layout, under: str, *, across: bool
    ) -> Iterator[Finding]:
        other_masks = set()
        for a, b in self._comparable(want, got, layout, across=across):
            if a.mask_where in other_masks:
                continue
            exact = self.repeats and (layout.repeats or not across)
            worst = difference(a, b, 0.0 if exact else a.tolerance)
            if worst is not None:
                what = "mask" if a.what == "count" else a.what
                other_masks |= {a.where} if what == "mask" else set()
                unmasked = a.what == "value" and a.where in self.program.in_time
                yield Finding(what, a.where, under, layout.move, *worst, unmasked=unmasked)

    def _comparable(
        self, want: list[Part], got: list[Part], layout: Layout, *, across: bool
    ) -> Iterator[tuple[Part, Part]]:
        same_positions = layout.keeps_positions or not across
        for a, b in zip(want, got, strict=True):
            if a.what == ("count" if same_positions else "mask"):
                continue
            if not a.mask_where and a.what in ("value", "statistics"):
                if layout.focus:
                    continue
                if across and not layout.timed and a.where in self.program.in_time:
                    self.notes[f"{layout.name}: {a.where} has a time axis and no mask"] = None
                    continue
            if across and layout.dropped:
                if a.rows is not None and b.rows is not None:
                    a, b = (p.select(~np.isin(np.asarray(p.rows), layout.dropped)) for p in (a, b))
                elif a.what != "gradient in params":
                    continue  # all rows contribute to it
            if across and layout.order and a.rows is not None:
                a = a.select(np.concatenate([np.flatnonzero(a.rows == r) for r in layout.order]))
            yield a, b

    # --------------------------------------------------------------------- limits of the check

    def _check_something_is_real(self) -> None:
        values = [part for part in self._reference(self.given) if part.what == "value"]
        for part in values:
            if not part.values.size:
                self.notes[f"{part.where}: its mask marks no entry as real"] = None
        if not any(part.values.size for part in values):
            text = (
                "nothing in it is real, so nothing could be compared. Is the mask right, or are "
                "the rows too short?"
            )
            self.findings.append(Finding("output", "output", "", "", text=text))

    def _note_unattributable(self, layout: Layout) -> None:
        for slot in self.program.slots if layout.focus else ():
            pooled_rows = self.batch * (self.subject.max_segments or 1)
            if slot.what == "value" and not attributable(slot, pooled_rows):
                text = f"{slot.where} does not say which sequence an entry belongs to"
                self.notes[f"{layout.name}: {text}"] = None

    def _note_limits_of_x(self, permuted: bool) -> None:
        if permuted and self.batch == 1:
            self.notes["permute: the batch has one row"] = None
        if all(is_constant(leaf, self.given.real) for leaf in self.given.x):
            self.notes["the order of steps and rows: `x` is the same at all real steps"] = None
        floats = [leaf[self.given.real] for leaf in self.given.x if is_inexact(leaf)]
        if floats and all(np.isrealobj(steps) and (steps >= 0).all() for steps in floats):
            text = "none of `x` is below 0, so a maximum that takes 0 for padding looks right"
            self.notes[f"other real values: {text}"] = None
        for part in self._reference(self.given):
            if (count := part.unsteady) and part.what != "count":
                text = (
                    f"{count} of {part.values.size} entries are hardly larger than their rounding"
                )
                self.notes[f"more padding: {part.what} of {part.where}: {text}"] = None

    # --------------------------------------------------------------------- running

    def _read(self, layout: Layout, x: list[np.ndarray], seed: int | None = None) -> list[Part]:
        return self._parts(layout, self.program.run(layout, x, seed))

    def _parts(self, layout: Layout, result: Result) -> list[Part]:
        return parts(result, self.subject, layout, self.program.by_row)

    def _measured(self, layout: Layout, x: list[np.ndarray], seed: int | None = None) -> list[Part]:
        """The results of a layout, with the tolerance of each entry."""
        seeds = range(SAMPLES) if self.has_barriers else ()
        return with_tolerance(
            self._read(layout, x, seed), [self._read(layout, x, s) for s in seeds]
        )

    def _runs_with_barriers(self) -> bool:
        try:
            self.program.run(self.given, self.baseline, 0)
        except Exception as error:
            self.notes[f"{BY_OPERATION}: {first_line(error)}"] = None
            return False
        return True


def _unequal(pairs: Iterator[tuple[Part, Part]], layout: Layout, under: str) -> Iterator[Finding]:
    for want, got in pairs:
        if (worst := difference(want, got, 0.0)) is not None:
            yield Finding(got.what, got.where, under, layout.move, *worst)


def _precision() -> str:
    # Off the CPU, float32 products may round like shorter types, differently for each shape.
    return jax.config.jax_default_matmul_precision or "highest"  # type: ignore[attr-defined]


def _traced(subject: Subject) -> Program:
    try:
        program = Program(subject)
    except Exception as error:
        error.add_note(f"{WHERE} traces the function with `jax.jit`; this is what it raised.")
        raise
    if not program.slots:
        raise ValueError(f"{WHERE}: `fn` must return at least one array, got none.")
    return program
