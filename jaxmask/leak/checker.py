"""The check: run a function on one layout after another, and compare."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxmask import _check
from jaxmask._types import PyTree
from jaxmask.leak.findings import Finding, LeakError, Report
from jaxmask.leak.layouts import MOVES, Layout, layouts
from jaxmask.leak.outputs import attributable
from jaxmask.leak.padding import Padding, copies, is_constant, paddings, plausible
from jaxmask.leak.program import Program, Result, first_line
from jaxmask.leak.reading import Part, Rounding, differ, emptiness, no_gradient, parts, wide
from jaxmask.leak.scope import misshapen, scope
from jaxmask.leak.subject import WHERE, Subject, subject


def check(
    fn: Any, x: PyTree, mask: Any, *, moves: tuple[str, ...] = (), params: PyTree = None
) -> Report:
    """Try to make padding change what a function gives, in value or in gradient.

    The padding is filled with nan, infinities, huge and ordinary values, and 1, 2 and 3 steps of
    it are appended on the right. Values and masks at real steps must be the same: bit for bit at
    one shape, to rounding between shapes. So must the gradients, of a fixed random cotangent at
    real steps, in `x` at real steps and in the parameters; in `x` at padded steps they must be 0
    while the padding is finite and of unit scale.

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
    with jax.debug_nans(False), jax.debug_infs(False):
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
        calm = self._read(self.given, self.calm)
        shaken = [self._shaken(seed) for seed in range(4)]
        self.rounding = Rounding(self.program.epsilon, calm, shaken, self.calm)
        # On some devices sums are not taken in the same order twice.
        again = self._read(self.given, self.calm)
        self.repeats = all(differ(a, b, 0.0) is None for a, b in zip(calm, again, strict=True))
        self.references: dict[tuple[tuple[int, ...], int, bool], list[Part]] = {((), 0, True): calm}

    def report(self, moves: tuple[str, ...]) -> Report:
        self._refuse_emptiness()
        padded = False
        for layout in layouts(self.given.x, self.given.marks, self.subject.max_segments, moves):
            examined = self._examine(layout)
            padded |= examined and not layout.real.all()
        if "permute" in moves and self.batch == 1:
            self.notes["permute: the batch has one row"] = None
        if all(is_constant(leaf, self.given.real) for leaf in self.given.x):
            self.notes["the order of steps and rows: `x` is the same at all real steps"] = None
        if not padded:
            notes = "; ".join(self.notes)
            raise ValueError(
                f"{WHERE}: there was nothing to try: the mask has no padding, and none could be "
                f"appended. Give a mask with padding. ({notes})"
            )
        if self.program.why_no_gradients:
            self.notes[f"gradients: {self.program.why_no_gradients}"] = None
        tried = tuple(scope(self.program, tuple(self.tried), repeats=self.repeats))
        return Report(self.subject.name, tuple(self.findings), tried, tuple(self.notes))

    # --------------------------------------------------------------------- one layout

    def _examine(self, layout: Layout) -> bool:
        """Compare a layout with the given one, and all paddings with each other on it."""
        if not self._runs(layout):
            return False
        given = layout.move == ""
        self._note_unattributable(layout)
        x = [copies(leaf, layout.real) for leaf in layout.x]
        result = self.program.run(layout, x)
        calm = self._parts(layout, result)
        if not given:
            self._compare(self._reference(layout), calm, layout, layout.name, across=True)
            self.tried[layout.name] = None
        under = layout.name or "copies of real steps in the padding"
        self._expect(no_gradient(result, self.subject, layout), layout, under)
        if layout.emptied:
            expected = emptiness(result, self.subject, layout, self.program.shares_rows)
            self._expect(expected, layout, under)
        if layout.real.all():
            if given:
                self.notes["padding at the given shape: the mask has none"] = None
            return True
        for padding in self._contents(layout):
            under = padding.name if given else f"{layout.name}, {padding.name}"
            result = self.program.run(layout, padding.x)
            self._compare(calm, self._parts(layout, result), layout, under, across=False)
            if padding.calm:
                self._expect(no_gradient(result, self.subject, layout), layout, under)
        return True

    def _contents(self, layout: Layout) -> Iterator[Padding]:
        if layout.focus:  # the rest is real, and nan there is nan in the gradients of parameters
            return iter([plausible(layout.x, layout.real)])
        return paddings(layout.x, layout.real, as_given=layout.move == "")

    def _note_unattributable(self, layout: Layout) -> None:
        for slot in self.program.slots if layout.focus else ():
            pooled_rows = self.batch * (self.subject.max_segments or 1)
            if slot.what == "value" and not attributable(slot, pooled_rows):
                text = f"{slot.where} does not say which sequence an entry belongs to"
                self.notes[f"{layout.name}: {text}"] = None

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
        """What the given layout gives for the same cotangents."""
        key = (layout.dropped, layout.focus, layout.timed)
        if key not in self.references:
            dropped, focus, timed = key
            same = replace(self.given, dropped=dropped, focus=focus, timed=timed)
            self.references[key] = self._read(same, self.calm)
        return self.references[key]

    def _compare(
        self, want: list[Part], got: list[Part], layout: Layout, under: str, *, across: bool
    ) -> None:
        other_masks = set()
        for i, a, b in self._comparable(want, got, layout, across=across):
            if a.mask_where in other_masks:
                continue
            exact = self.repeats and (layout.repeats or not across)
            difference = differ(a, b, 0.0 if exact else self.rounding.of(i, a))
            if difference is not None:
                what = "mask" if a.what == "count" else a.what
                other_masks |= {a.where} if what == "mask" else set()
                unmasked = a.what == "value" and a.where in self.program.in_time
                found = Finding(what, a.where, under, layout.move, *difference, unmasked=unmasked)
                self.findings.append(found)

    def _comparable(
        self, want: list[Part], got: list[Part], layout: Layout, *, across: bool
    ) -> Iterator[tuple[int, Part, Part]]:
        places = layout.keeps_places or not across
        for i, (a, b) in enumerate(zip(want, got, strict=True)):
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
            yield i, a, b

    def _expect(self, pairs: Iterator[tuple[Part, Part]], layout: Layout, under: str) -> None:
        for want, got in pairs:
            if (difference := differ(want, got, 0.0)) is not None:
                found = Finding(got.what, got.where, under, layout.move, *difference)
                self.findings.append(found)

    def _refuse_emptiness(self) -> None:
        values = [part for part in self.references[(), 0, True] if part.what == "value"]
        for part in values:
            if not part.values.size:
                self.notes[f"{part.where}: its mask marks no entry as real"] = None
        if not any(part.values.size for part in values):
            text = (
                "nothing in it is real, so nothing could be compared. Is the mask right, or are "
                "the rows too short?"
            )
            self.findings.append(Finding("output", "output", "", "", text=text))

    # --------------------------------------------------------------------- running

    def _read(self, layout: Layout, x: list[np.ndarray]) -> list[Part]:
        return self._parts(layout, self.program.run(layout, x))

    def _parts(self, layout: Layout, result: Result) -> list[Part]:
        return parts(result, self.subject, layout, self.program.shares_rows)

    def _shaken(self, seed: int) -> list[Part]:
        """What the given layout gives with each input, parameter and cotangent off by one ε."""
        rng = np.random.default_rng(seed)

        def shake(leaf: np.ndarray) -> np.ndarray:
            if leaf.dtype.kind in "biu":
                return leaf
            signs = rng.choice([-1.0, 1.0], size=leaf.shape)
            with np.errstate(all="ignore"):
                return (wide(leaf) * (1 + self.program.epsilon * signs)).astype(leaf.dtype)

        params = [shake(leaf) for leaf in self.subject.params.arrays]
        x = [shake(leaf) for leaf in self.calm]
        result = self.program.run(self.given, x, params, self.program.epsilon)
        return self._parts(self.given, result)


def _traced(checked: Subject) -> Program:
    try:
        program = Program(checked)
    except Exception as error:
        error.add_note(f"{WHERE} traces the function with `jax.jit`; this is what it raised.")
        raise
    if not program.slots:
        raise ValueError(f"{WHERE}: `fn` must return at least one array, got none.")
    return program
