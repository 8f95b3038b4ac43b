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
from jaxmask.leak.outputs import Slot
from jaxmask.leak.padding import copies, paddings
from jaxmask.leak.program import Cotangents, Program, Result, first_line, groups_of
from jaxmask.leak.reading import Part, Rounding, differ, padded_gradients, parts, wide
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
        self.shares_rows = self._unmasked_rows()
        self.findings: list[Finding] = []
        self.notes: dict[str, None] = {}
        self.tried: dict[str, None] = {}
        self.drawn = self.program.cotangents()
        self.calm = [copies(leaf, self.given.real) for leaf in checked.x.arrays]
        calm = self._read(self.given, self.calm)
        self.rounding = Rounding(self.program.epsilon, calm, [self._shaken(s) for s in (2, 3)])
        # On some devices sums are not taken in the same order twice.
        again = self._read(self.given, self.calm)
        self.repeats = all(differ(a, b, 0.0) is None for a, b in zip(calm, again, strict=True))
        self.references: dict[tuple[tuple[int, ...], int], list[Part]] = {((), 0): calm}

    def report(self, moves: tuple[str, ...]) -> Report:
        self._refuse_emptiness()
        padded = 0
        for layout in layouts(self.given.x, self.given.marks, self.subject.max_segments, moves):
            padded += self._examine(layout) and not layout.real.all()
        if "permute" in moves and self.batch == 1:
            self.notes["permute: the batch has one row"] = None
        if not padded:
            raise ValueError(
                f"{WHERE}: there was nothing to try: the mask has no padding, and none could be "
                f"appended. Give a mask with padding.\n{chr(10).join(self.notes)}"
            )
        tried = (*self._scope(), *self._comparisons())
        return Report(self.subject.name, tuple(self.findings), tried, tuple(self.notes))

    # --------------------------------------------------------------------- one layout

    def _examine(self, layout: Layout) -> bool:
        """Compare a layout with the given one, and all paddings with each other on it."""
        if not self._runs(layout):
            return False
        given = layout.move == ""
        x = [copies(leaf, layout.real) for leaf in layout.x]
        result = self._run(layout, x)
        calm = self._parts(layout, result)
        if not given:
            self._compare(self._reference(layout), calm, layout, layout.name, across=True)
            self.tried[layout.name] = None
        self._expect_no_gradient(
            layout, result, layout.name or "copies of real steps in the padding"
        )
        if layout.emptied:
            self._expect_emptiness(layout, result)
        if layout.real.all():
            self.notes["padding at the given shape: the mask has none"] = None
            return True
        for padding in paddings(layout.x, layout.real, as_given=given):
            under = padding.name if given else f"{layout.name}, {padding.name}"
            result = self._run(layout, padding.x)
            self._compare(calm, self._parts(layout, result), layout, under, across=False)
            if padding.calm:
                self._expect_no_gradient(layout, result, under)
        return True

    def _runs(self, layout: Layout) -> bool:
        """Whether the function takes this shape and returns what it returned before."""
        try:
            slots = self.program.trace(layout.x, layout.marks)
        except Exception as error:
            self.notes[f"{layout.name}: the function failed with {first_line(error)}"] = None
            return False
        shape = _misshapen(self.program.slots, slots)
        if shape:
            finding = Finding("output", "output", layout.name, layout.move, text=shape)
            self.findings.append(finding)
        return not shape

    def _reference(self, layout: Layout) -> list[Part]:
        """What the given layout gives for the same cotangents."""
        key = (layout.dropped, layout.focus)
        if key not in self.references:
            same = replace(self.given, dropped=layout.dropped, focus=layout.focus)
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
                unmasked = a.what == "value" and not a.mask_where
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
                if across and self._lies_in_time(a, layout):
                    self.notes[f"{layout.name}: {a.where} has a time axis and no mask"] = None
                    continue
            if across and layout.dropped:
                if a.rows is not None and b.rows is not None:
                    a, b = (p.take(~np.isin(p.rows, layout.dropped)) for p in (a, b))
                elif a.what != "gradient in params":
                    continue  # all rows have a share in it
            if across and layout.order and a.rows is not None:
                a = a.take(np.concatenate([np.flatnonzero(a.rows == r) for r in layout.order]))
            yield i, a, b

    def _lies_in_time(self, part: Part, layout: Layout) -> bool:
        moved = layout.move in ("left", "holes")
        return moved and part.values.shape[:2] == self.given.marks.shape

    # --------------------------------------------------------------------- expectations

    def _expect_no_gradient(self, layout: Layout, result: Result, under: str) -> None:
        for part in padded_gradients(result, self.subject, layout):
            nothing = replace(part, values=np.zeros_like(part.values))
            self._add(nothing, part, layout, under)

    def _expect_emptiness(self, layout: Layout, result: Result) -> None:
        """Pooled rows give 0 and False, other masks are False, other values finite."""
        pooled_rows = self.batch * (self.subject.max_segments or 1)
        for slot, real in zip(result.slots, result.real, strict=True):
            array = wide(slot.array)
            part = Part(slot.what, slot.where, array)
            inside = np.ones(array.shape, bool)
            if (real is not None or slot.what == "mask" or slot.where in self.shares_rows) and (
                groups_of(array.shape[0], self.batch) == self.batch
            ):
                rows = np.arange(array.shape[0]) // max(1, array.shape[0] // self.batch)
                emptied = np.isin(rows, layout.dropped)
                inside &= emptied.reshape(-1, *(1,) * (array.ndim - 1))
            pooled = real is not None and real.shape == (pooled_rows,)
            zero = slot.what == "mask" or pooled
            bad = inside & ((array != 0) if zero else ~np.isfinite(array))
            self._add(replace(part, values=np.where(bad, 0, array)), part, layout, layout.name)

    def _add(self, want: Part, got: Part, layout: Layout, under: str) -> None:
        difference = differ(want, got, 0.0)
        if difference is not None:
            self.findings.append(Finding(got.what, got.where, under, layout.move, *difference))

    def _refuse_emptiness(self) -> None:
        values = [part for part in self.references[(), 0] if part.what == "value"]
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
        return self._parts(layout, self._run(layout, x))

    def _parts(self, layout: Layout, result: Result) -> list[Part]:
        return parts(result, self.subject, layout, self.shares_rows)

    def _run(self, layout: Layout, x: list[np.ndarray]) -> Result:
        return self.program.run(layout, x, self._cotangents(layout))

    def _cotangents(self, layout: Layout) -> Cotangents:
        """The drawn ones, in the order of the rows, 0 for what is not compared."""
        if not (layout.order or layout.dropped):
            return self.drawn
        order = list(layout.order or range(self.batch))
        placed: Cotangents = []
        for slot, drawn in zip(self.program.slots, self.drawn, strict=True):
            if drawn is not None and self._has_rows(slot):
                grouped = drawn.reshape(self.batch, -1, *drawn.shape[1:])[order]
                grouped[list(layout.dropped)] = 0
                drawn = grouped.reshape(drawn.shape)
            elif drawn is not None and layout.dropped:
                drawn = np.zeros_like(drawn)
            placed.append(drawn)
        return placed

    def _has_rows(self, slot: Slot) -> bool:
        if slot.mask is None and slot.where not in self.shares_rows:
            return False
        size = slot.array.shape[0]
        return bool(size) and groups_of(size, self.batch) == self.batch

    def _shaken(self, seed: int) -> list[Part]:
        """What the given layout gives when every real input and parameter is off by one ε."""
        rng = np.random.default_rng(seed)

        def shake(leaf: np.ndarray) -> np.ndarray:
            if leaf.dtype.kind in "biu":
                return leaf
            signs = rng.choice([-1.0, 1.0], size=leaf.shape)
            with np.errstate(all="ignore"):
                return (wide(leaf) * (1 + self.program.epsilon * signs)).astype(leaf.dtype)

        params = [shake(leaf) for leaf in self.subject.params.arrays]
        x = [shake(leaf) for leaf in self.calm]
        return self._parts(self.given, self.program.run(self.given, x, self.drawn, params))

    def _unmasked_rows(self) -> frozenset[str]:
        """The unmasked arrays whose leading axis is the batch: it grows when the batch does."""
        slots = [s for s in self.program.slots if s.what == "value" and s.mask is None]
        names = {s.where for s in slots if s.array.shape[:1] == (self.batch,)}
        if not names:
            return frozenset()
        longer = [np.concatenate([a, a[:1]]) for a in (*self.given.x, self.given.marks)]
        try:
            more = self.program.trace(longer[:-1], longer[-1])
        except Exception:  # something of this batch is closed over
            return frozenset(names)
        return frozenset(
            s.where for s in more if s.where in names and s.array.shape[0] != self.batch
        )

    # --------------------------------------------------------------------- the scope, in words

    def _scope(self) -> Iterator[str]:
        subject, marks = self.subject, self.given.marks
        shapes = [
            f"{name} {leaf.dtype} {list(leaf.shape)}"
            for name, leaf in zip(subject.x.names, subject.x.arrays, strict=True)
        ]
        unit = "rows" if marks.ndim == 1 else "steps"
        real = f"{int((marks > 0).sum())} of {marks.size} {unit} real"
        yield f"input: {'; '.join(shapes)}; mask {list(marks.shape)}, {real}"
        values = [slot.describe() for slot in self.program.slots if slot.what != "mask"]
        yield f"output: {'; '.join(values)}"

    def _comparisons(self) -> Iterator[str]:
        names = [p.name for p in paddings(self.given.x, self.given.real, as_given=True)]
        yield f"tried: {'; '.join(names)}"
        if self.tried:
            yield f"each of these also with: {'; '.join(self.tried)}"
        if self.program.gradients:
            what = "in x and params" if self.subject.params.arrays else "in x"
            yield f"compared: values, masks, gradients {what}"
        else:
            yield "compared: values, masks"
            self.notes[f"gradients: {self.program.why_not}"] = None
        if not self.repeats:
            yield "two runs on the same input differ, so all was compared to rounding"


def _traced(checked: Subject) -> Program:
    try:
        program = Program(checked)
    except Exception as error:
        error.add_note(f"{WHERE} traces the function with `jax.jit`; this is what it raised.")
        raise
    if not program.slots:
        raise ValueError(f"{WHERE}: `fn` must return at least one array, got none.")
    return program


def _misshapen(given: list[Slot], now: list[Slot]) -> str:
    """How an output no longer fits the one at the given shape; "" if it does."""
    if [_signature(slot) for slot in given] != [_signature(slot) for slot in now]:
        return (
            "its structure changes with the shape of the input, from "
            f"{[slot.describe() for slot in given]} to {[slot.describe() for slot in now]}"
        )
    for old, new in zip(given, now, strict=True):
        first = 0 if old.mask is None else old.mask.ndim
        if old.what != "mask" and any(
            b < a for a, b in zip(old.array.shape[first:], new.array.shape[first:], strict=True)
        ):
            return f"{old.where} shrinks from {old.array.shape} to {new.array.shape}"
    return ""


def _signature(slot: Slot) -> tuple[Any, ...]:
    rank = None if slot.mask is None else slot.mask.ndim
    return slot.what, slot.where, slot.array.ndim, slot.array.dtype, rank
