"""The check: run a function on one layout after another, and compare."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxmask import _check
from jaxmask._types import PyTree
from jaxmask.leak._findings import APART, Finding, LeakError, Report
from jaxmask.leak._layouts import MOVES, Layout, layouts
from jaxmask.leak._outputs import attributable, is_inexact
from jaxmask.leak._padding import Padding, copies, is_constant, paddings, plausible
from jaxmask.leak._program import Program, Result, first_line
from jaxmask.leak._reading import Part, allowing, differ, emptiness, no_gradient, parts
from jaxmask.leak._scope import misshapen, scope
from jaxmask.leak._subject import WHERE, Subject, subject


def check(
    fn: Any, x: PyTree, mask: Any, *, moves: tuple[str, ...] = (), params: PyTree = None
) -> Report:
    """Try to make padding change what a function gives, in value or in gradient.

    The padding is filled with nan, infinities, huge and ordinary values, marks such as 0 and -1,
    and copies of real steps; 1, 2 and 3 steps of it are appended on the right, and as many as there
    are. Values and masks at real steps must be the same, and so must the gradients, of a fixed
    random cotangent at real steps, in `x` at real steps and in the parameters; in `x` at padded
    steps gradients must be 0 while the padding is finite and of unit scale.

    The program is compiled whole, as XLA optimises it by default (on CPU without the optimisations
    of LLVM, which keep what is computed). XLA may hide a leak: under jit it makes a select of a
    product with a mask, so nan in the padding stays there, and alone or in another program it does
    not. So all contents of the padding are tried once more, at the smallest shape with padding, in
    a program with a barrier behind each operation, also within loops, branches and backward passes
    (not within kernels of Pallas and calls to foreign code). Either program convicts.

    At one shape results must agree bit for bit. Between shapes each entry may differ by

        4 * spread + 4 ε |entry|

    where ε is that of its type, and `spread` how far the entry moves at most, in twelve runs, when
    each operation that rounds has its result moved by up to two units in its last place, at random.
    Matrix products run at the highest precision unless JAX is configured otherwise.

    What it cannot see: padding beyond twice the length (buckets, blocks); what shows at other real
    values only (a maximum that takes 0 for padding is right where all of `x` is above 0, so give
    both signs); second derivatives and forward mode; what a module keeps besides batch statistics;
    results that are wrong whatever the padding holds; a change below the tolerance.

    Args:
      fn: any function that `jax.jit` can trace, from jaxmask or not: `fn(x, mask)`, or
        `fn(params, x, mask)` with `params`, or an `nnx.Module` called as `module(x, mask)`, whose
        parameters are `params` and whose batch statistics after the call are one more result. The
        module itself does not change. What `fn` closes over is constant.
      x: `[batch, time, ...]`, floating, integer or boolean, or a pytree of such; `[batch, ...]`
        under a row mask. In the padding of integers stand 0, the lowest and the highest of the
        dtype, and values of real steps.
      mask: `[batch, time]`, boolean; or a row mask `[batch]`, whose padding is rows; or `Segments`,
        where each sequence is also checked against the others of its row.
      moves: more to try, for a function that promises more. `"left"`: padding moved to the left.
        `"holes"`: padding between real steps. `"empty"`: rows emptied; pooled they must give 0 and
        False, else False and finite values, and no other row may change. `"permute"`: rows in
        another order, and one row in another's place, which must change no other row.
      params: a pytree of arrays.

    Returns:
      A `Report`: `.ok`, `.findings`, and a text that says what was tried and what could not be.
      The output is read so: a tuple `(values, boolean mask)`, anywhere in it, counts where its mask
      is True; any other array (a loss, a carry) counts everywhere, and may grow with more
      padding only by zeros.

    Raises:
      TypeError, ValueError, MaskError: if an argument is not as above, or the mask marks nothing
        as real. Whatever `fn` raises at the shapes that were given; at longer ones it is reported
        as not tested.

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
    checked = subject(fn, x, mask, params)
    physical = [move for move in moves if move != "permute"]
    if checked.marks.ndim == 1 and physical:
        raise ValueError(
            f"{WHERE}: the moves {physical} need a mask [batch, time], got a row mask [batch]."
        )
    # The check itself puts nan and inf there.
    with jax.debug_nans(False), jax.debug_infs(False), jax.default_matmul_precision(_precision()):
        return _Checker(checked).report(tuple(dict.fromkeys(moves)))


def assert_padding_invariant(
    fn: Any, x: PyTree, mask: Any, *, moves: tuple[str, ...] = (), params: PyTree = None
) -> None:
    """Raise a `LeakError` with the text of the report if `check` finds a leak: one line in a test.

    Args:
      fn: as in `check`.
      x: as in `check`.
      mask: as in `check`.
      moves: as in `check`.
      params: as in `check`.

    Raises:
      LeakError: an `AssertionError`, if padding leaks. Otherwise as `check`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.arange(1.0, 7).reshape(1, 6), jnp.arange(6)[None] < 4
      >>> jm.leak.assert_padding_invariant(jm.ops.softmax, x, mask)
    """
    report = check(fn, x, mask, moves=moves, params=params)
    if not report.ok:
        raise LeakError(str(report))


# Runs that measure rounding: operations as they are, and twelve times rounded anew.
SAMPLES = 13


class _Checker:
    def __init__(self, checked: Subject):
        self.subject = checked
        self.program = _traced(checked)
        self.given = Layout("", "", checked.x.arrays, checked.marks)
        self.batch = len(checked.marks)
        self.findings: list[Finding] = []
        self.notes: dict[str, None] = {}
        self.tried: dict[str, None] = {}
        self.calm = [copies(leaf, self.given.real) for leaf in checked.x.arrays]
        # On some devices sums are not taken in the same order twice.
        once, again = (self._read(self.given, self.calm) for _ in range(2))
        self.repeats = all(differ(a, b, 0.0) is None for a, b in zip(once, again, strict=True))
        self.apart = self._can_be_taken_apart()
        self.references: dict[tuple[tuple[int, ...], int, bool], list[Part]] = {}

    def report(self, moves: tuple[str, ...]) -> Report:
        self._refuse_emptiness()
        padded = False
        for layout in layouts(self.given.x, self.given.marks, self.subject.max_segments, moves):
            examined = self._examine(layout)
            padded |= examined and not layout.real.all()
        self._note_what_x_cannot_show("permute" in moves)
        if not padded:
            notes = "; ".join(self.notes)
            raise ValueError(
                f"{WHERE}: there was nothing to try: the mask has no padding, and none could be "
                f"appended. Give a mask with padding. ({notes})"
            )
        if self.program.why_no_gradients:
            self.notes[f"gradients: {self.program.why_no_gradients}"] = None
        at = self._smallest_with_padding if self.apart else None
        tried = scope(self.program, tuple(self.tried), repeats=self.repeats, apart_at=at)
        return Report(self.subject.name, tuple(self.findings), tuple(tried), tuple(self.notes))

    # --------------------------------------------------------------------- one layout

    def _examine(self, layout: Layout) -> bool:
        """Compare a layout with the given one, and all paddings with each other on it."""
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
        self.findings += _expected(no_gradient(result, self.subject, layout), layout, under)
        if layout.emptied:
            expected = emptiness(result, self.subject, layout, self.program.shares_rows)
            self.findings += _expected(expected, layout, under)
        if layout.real.all():
            if given:
                self.notes["padding at the given shape: the mask has none"] = None
            return True
        found = self._poisoned(layout, x)
        if self.apart and layout.marks.shape == self._smallest_with_padding:
            # One finding of an array says enough, and that of the whole program says more.
            known = {(finding.what, finding.where) for finding in found}
            more = self._poisoned(layout, x, seed=0)
            found += [finding for finding in more if (finding.what, finding.where) not in known]
        self.findings += found
        return True

    def _poisoned(
        self, layout: Layout, calm: list[np.ndarray], seed: int | None = None
    ) -> list[Finding]:
        """What differs between any padding and copies of real steps, `calm`."""
        want = (self._read if self.repeats else self._measured)(layout, calm, seed)
        found: list[Finding] = []
        for padding in self._contents(layout):
            names = ("" if seed is None else APART, layout.name, padding.name)
            under = ", ".join(filter(None, names))
            result = self.program.run(layout, padding.x, seed)
            got = self._parts(layout, result)
            found += self._compared(want, got, layout, under, across=False)
            if padding.calm:
                found += _expected(no_gradient(result, self.subject, layout), layout, under)
        return found

    def _contents(self, layout: Layout) -> Iterator[Padding]:
        if layout.focus:  # the rest is real, and nan there is nan in the gradients of parameters
            return iter([plausible(layout.x, layout.real)])
        return paddings(layout.x, layout.real, as_given=layout.move == "")

    @property
    def _smallest_with_padding(self) -> tuple[int, ...]:
        """The shape at which operations are kept apart: compiling it takes as long again."""
        marks = self.given.marks
        longer = int(self.given.real.all())
        return (*marks.shape[:-1], marks.shape[-1] + longer)

    def _runs(self, layout: Layout) -> bool:
        """Whether the function takes this shape and returns what it returned before."""
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
        """What the given layout gives for the same cotangents, and how far it may be off."""
        key = (layout.dropped, layout.focus, layout.timed)
        if key not in self.references:
            dropped, focus, timed = key
            same = replace(self.given, dropped=dropped, focus=focus, timed=timed)
            self.references[key] = self._measured(same, self.calm)
        return self.references[key]

    def _compared(
        self, want: list[Part], got: list[Part], layout: Layout, under: str, *, across: bool
    ) -> Iterator[Finding]:
        other_masks = set()
        for a, b in self._comparable(want, got, layout, across=across):
            if a.mask_where in other_masks:
                continue
            exact = self.repeats and (layout.repeats or not across)
            difference = differ(a, b, 0.0 if exact else a.tolerance)
            if difference is not None:
                what = "mask" if a.what == "count" else a.what
                other_masks |= {a.where} if what == "mask" else set()
                unmasked = a.what == "value" and a.where in self.program.in_time
                yield Finding(what, a.where, under, layout.move, *difference, unmasked=unmasked)

    def _comparable(
        self, want: list[Part], got: list[Part], layout: Layout, *, across: bool
    ) -> Iterator[tuple[Part, Part]]:
        places = layout.keeps_places or not across
        for a, b in zip(want, got, strict=True):
            if a.what == ("count" if places else "mask"):
                continue
            if not a.mask_where and a.what in ("value", "statistics"):
                if layout.focus:
                    continue
                if across and not layout.timed and a.where in self.program.in_time:
                    self.notes[f"{layout.name}: {a.where} has a time axis and no mask"] = None
                    continue
            if across and layout.dropped:
                if a.rows is not None and b.rows is not None:
                    a, b = (p.take(~np.isin(np.asarray(p.rows), layout.dropped)) for p in (a, b))
                elif a.what != "gradient in params":
                    continue  # all rows have a share in it
            if across and layout.order and a.rows is not None:
                a = a.take(np.concatenate([np.flatnonzero(a.rows == r) for r in layout.order]))
            yield a, b

    # --------------------------------------------------------------------- what shows nothing

    def _refuse_emptiness(self) -> None:
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

    def _note_what_x_cannot_show(self, permuted: bool) -> None:
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
        return parts(result, self.subject, layout, self.program.shares_rows)

    def _measured(self, layout: Layout, x: list[np.ndarray], seed: int | None = None) -> list[Part]:
        """What a layout gives, and how far each entry may be off."""
        seeds = range(SAMPLES) if self.apart else ()
        return allowing(self._read(layout, x, seed), [self._read(layout, x, s) for s in seeds])

    def _can_be_taken_apart(self) -> bool:
        try:
            self.program.run(self.given, self.calm, 0)
        except Exception as error:
            self.notes[f"{APART}: {first_line(error)}"] = None
            return False
        return True


def _expected(pairs: Iterator[tuple[Part, Part]], layout: Layout, under: str) -> Iterator[Finding]:
    for want, got in pairs:
        if (difference := differ(want, got, 0.0)) is not None:
            yield Finding(got.what, got.where, under, layout.move, *difference)


def _precision() -> str:
    # Elsewhere than on CPU products of float32 round like shorter types, each shape in its own way.
    return jax.config.jax_default_matmul_precision or "highest"  # type: ignore[attr-defined]


def _traced(checked: Subject) -> Program:
    try:
        program = Program(checked)
    except Exception as error:
        error.add_note(f"{WHERE} traces the function with `jax.jit`; this is what it raised.")
        raise
    if not program.slots:
        raise ValueError(f"{WHERE}: `fn` must return at least one array, got none.")
    return program
