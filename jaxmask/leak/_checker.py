"""`leak.check`: run a function on one layout after another, and compare."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from jaxmask.leak._blaming import Blame
from jaxmask.leak._findings import (
    BY_OPERATION,
    LeakReport,
    Witness,
    findings_of,
    text_of,
)
from jaxmask.leak._layouts import Layout, layouts, without_padding
from jaxmask.leak._outputs import attributable, is_inexact
from jaxmask.leak._padding import Padding, copies, is_constant, paddings, plausible
from jaxmask.leak._program import Result
from jaxmask.leak._proof.proof import ClaimReport, Proof
from jaxmask.leak._proof.prove import Proofs
from jaxmask.leak._reading import Part, difference, emptiness, no_gradient, parts, with_tolerance
from jaxmask.leak._scope import Scope, misshapen, scope
from jaxmask.leak._subject import WHERE, first_line
from jaxmask.leak._tables import Tables
from jaxmask.leak._tracing import traced

NO_PADDING = (
    "padding at the given shape: the mask has none, so that nothing could be concluded from it; "
    "some was appended"
)
SAMPLES = 13  # runs that measure rounding: one that rounds as usual, and twelve at random


class Checker:
    """Compares a function with itself on other layouts and contents of the padding."""

    def __init__(self, proofs: Proofs, tables: Tables, *, everything: bool):
        self.subject = subject = proofs.inputs
        self.proofs, self.tables = proofs, tables
        self.program = traced(proofs)
        self.given = Layout("", "", subject.x.arrays, subject.marks)
        self.batch = len(subject.marks)
        self.witnesses: list[Witness] = []
        self.judged: dict[str, Proof | None] = {}
        self.undecided: dict[tuple[str, str], ClaimReport] = {}
        self.undecided_at_first = False
        self.notes: dict[str, None] = {}
        self.tried: dict[str, None] = {}
        self.poisoned: dict[str, None] = {}
        self.baseline = [copies(leaf, self.given.real) for leaf in subject.x.arrays]
        self.everything = everything
        self.by_operation = self._runs_by_operation()
        self.whole = everything or not self.by_operation
        # Some devices do not sum in the same order twice.
        once, again = (self._read(self.given, self.baseline) for _ in range(2))
        self.repeats = all(difference(a, b, 0.0) is None for a, b in zip(once, again, strict=True))
        self.references: dict[tuple[tuple[int, ...], int, bool], list[Part]] = {}

    def report(self, moves: tuple[str, ...]) -> LeakReport:
        """Try everything, and find the lines that are to blame."""
        self._check_something_is_real()
        padded = False
        for layout in layouts(self.given.x, self.given.marks, self.subject.max_segments, moves):
            examined = self._examine(layout)
            padded |= examined and not layout.real.all()
        self.witnesses += self._turned_to_nan()
        self._note_limits_of_x("permute" in moves)
        self._note_other_masks()
        if not padded:
            notes = "; ".join(self.notes)
            raise ValueError(
                f"{WHERE}: there was nothing to try: the mask has no padding, and none could be "
                f"appended. Give a mask with padding. ({notes})"
            )
        if self.program.why_no_gradients:
            self.notes[f"gradients: {self.program.why_no_gradients}"] = None
        witnesses = tuple(self.witnesses)
        proof = next(iter(self.judged.values()), None)
        blame = Blame(self.proofs, proof)
        outside, others = self.tables.apart(witnesses)
        findings = findings_of(others, blame)
        of_outside = findings_of(outside, blame)
        out_of_table = self.tables.explain(of_outside, outside, blame.outside)
        report = LeakReport(
            self.subject.name,
            (*findings, *out_of_table),
            tuple(scope(self.program, self._scope())),
            tuple(self.notes),
            proved=self._proved(proof),
            undecided=tuple(self.undecided.values()),
            witnesses=witnesses,
        )
        return replace(report, text=text_of(report))

    def _proved(self, proof: Proof | None) -> tuple[ClaimReport, ...]:
        seen = {(w.what, w.where) for w in self.witnesses if not w.move}
        claims = proof.claims if proof else ()
        return tuple(c for c in claims if c.verdict == "proved" and (c.what, c.where) not in seen)

    def _scope(self) -> Scope:
        return Scope(
            layouts=tuple(self.tried),
            poisoned=tuple(self.poisoned),
            repeats=self.repeats,
            whole=self.whole,
            by_operation_at=self._smallest_with_padding if self.by_operation else None,
        )

    # --------------------------------------------------------------------- one layout

    def _examine(self, layout: Layout) -> bool:
        """Compare a layout with the given one, and all contents of its padding with each other."""
        gradients = self._takes_gradients(layout)
        if not self._runs(layout, gradients=gradients and not self.whole and layout.move != ""):
            return False
        given = layout.move == ""
        self._note_unattributable(layout)
        x = [copies(leaf, layout.real) for leaf in layout.x]
        result = self._run(layout, x, gradients=gradients)
        if not given:
            want, got = self._reference(layout), self._parts(layout, result)
            want = want if gradients else [p for p in want if not p.what.startswith("gradient")]
            self.witnesses += self._compared(want, got, layout, layout.name, across=True)
            self.tried[layout.name if gradients else f"{layout.name} (values)"] = None
        under = layout.name or "copies of real steps in the padding"
        self.witnesses += _unequal(no_gradient(result, self.subject, layout), layout, under)
        if layout.emptied:
            pairs = emptiness(result, self.subject, layout, self.program.by_row)
            self.witnesses += _unequal(pairs, layout, under)
        if layout.real.all():
            if given:
                self.notes[NO_PADDING] = None
            return True
        open_claims = self._open_claims(layout)
        if not self.everything and open_claims == {}:
            return True
        self.poisoned[layout.name or "the given padding"] = None
        found = self._poisoned(layout, x, None if self.whole else 0)
        if self.whole and self.by_operation and layout.marks.shape == self._smallest_with_padding:
            # One witness per array is enough, and the one without barriers says more.
            known = {(w.what, w.where) for w in found}
            more = self._poisoned(layout, x, 0)
            found += [w for w in more if (w.what, w.where) not in known]
        self.witnesses += found
        self._note_undecided(open_claims or {})
        return True

    def _is_longest(self, layout: Layout) -> bool:
        return bool(layout.marks.shape[-1] == 2 * self.given.marks.shape[-1])

    def _takes_gradients(self, layout: Layout) -> bool:
        """At all lengths their programs would take most of the time."""
        extra = layout.marks.shape[-1] - self.given.marks.shape[-1]
        between = layout.move == "append" and extra > 1 and not self._is_longest(layout)
        return self.whole or bool(self.program.why_no_gradients) or not between

    def _open_claims(self, layout: Layout) -> dict[tuple[str, str], ClaimReport] | None:
        """What is not proved on a layout; empty if nothing need be tried, None if all must be.

        A proof is asked for at the given shape, and once for each move. What more padding does,
        the comparison with the given layout shows.
        """
        move = layout.move
        if layout.focus:
            return None
        if move == "append" and self.undecided_at_first:
            # More padding holds more draws of each content.
            return None if self._is_longest(layout) else {}
        if move in self.judged or (move in ("permute", "append") and self.judged):
            return {}
        proof = None
        if layout.real.any():
            try:
                proof = self.proofs.of(layout.x, layout.marks)
            except Exception as error:
                self.notes[f"proof: {first_line(error)}"] = None
            self.judged[move] = proof
        if proof is None:
            return None
        # What is proved in finite mode may fail where an intermediate is infinite: sqrt at 0.
        found = {
            (c.what, c.where): c
            for c in proof.claims
            if c.verdict != "proved" or c.assumed == "finite"
        }
        undecided = any(claim.verdict != "proved" for claim in found.values())
        self.undecided_at_first |= len(self.judged) == 1 and undecided
        return found

    def _note_undecided(self, claims: dict[tuple[str, str], ClaimReport]) -> None:
        seen = {(w.what, w.where) for w in self.witnesses}
        values = any(not w.of_gradient for w in self.witnesses)
        for key, claim in claims.items():
            follows = values and key[0].startswith("gradient")
            if claim.verdict != "proved" and key not in seen and not follows:
                self.undecided.setdefault(key, claim)

    def _poisoned(
        self, layout: Layout, baseline: list[np.ndarray], seed: int | None = None
    ) -> list[Witness]:
        """Differences between each content of the padding and copies of real steps, `baseline`."""
        want = (self._read if self.repeats else self._measured)(layout, baseline, seed)
        prefix = BY_OPERATION if seed is not None and self.whole else ""
        found: list[Witness] = []
        for padding in self._contents(layout):
            names = (prefix, layout.name, padding.name)
            under = ", ".join(filter(None, names))
            self.tables.note(under, padding.x, layout.real)
            result = self._run(layout, padding.x, seed)
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

    def _runs(self, layout: Layout, *, gradients: bool) -> bool:
        """Whether the function takes this shape, and returns the structure of the given shape."""
        try:
            slots = self.program.slots_on(layout, gradients=gradients)
        except Exception as error:
            self.notes[f"{layout.name}: the function failed with {first_line(error)}"] = None
            return False
        shape = misshapen(self.program.slots, slots)
        if shape:
            witness = Witness("output", "output", layout.name, layout.move, text=shape)
            self.witnesses.append(witness)
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
    ) -> Iterator[Witness]:
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
                yield Witness(what, a.where, under, layout.move, *worst, unmasked=unmasked)

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

    def _turned_to_nan(self) -> Iterator[Witness]:
        """Results that are nan whatever the padding holds, and in no row alone.

        A 0 that is put in the padding does that to the gradients of norms and roots.
        """
        spoiled = [part for part in self._reference(self.given) if part.has_nan]
        if not spoiled or self.given.real.all():  # where padding is appended, it shows
            return
        alone = self._nan_without_padding()
        if alone is None:
            return
        for part in spoiled:
            if (part.what, part.where) in alone:
                self.notes[f"{part.what} of {part.where}: it is nan for a row alone too"] = None
            else:
                text = "nan whatever the padding holds, and for no row alone without padding"
                yield Witness(part.what, part.where, "", "", text=text)

    def _nan_without_padding(self) -> set[tuple[str, str]] | None:
        """The results that are nan where nothing is padding; None if the function takes no such."""
        why = ""
        for way in without_padding(replace(self.given, x=self.baseline)):
            try:
                read = [part for each in way for part in self._read(each, each.x)]
            except Exception as error:
                why = why or first_line(error)
                continue
            return {(part.what, part.where) for part in read if part.has_nan}
        self.notes[f"each row alone, since some result is nan: {why}"] = None
        return None

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
            self.witnesses.append(Witness("output", "output", "", "", text=text))

    def _note_unattributable(self, layout: Layout) -> None:
        for slot in self.program.slots if layout.focus else ():
            pooled_rows = self.batch * (self.subject.max_segments or 1)
            if slot.what == "value" and not attributable(slot, pooled_rows):
                text = f"{slot.where} does not say which sequence an entry belongs to"
                self.notes[f"{layout.name}: {text}"] = None

    def _note_other_masks(self) -> None:
        unmasked = {slot.where: slot.array for slot in self.program.slots if slot.mask is None}
        for where, mask in unmasked.items():
            values = unmasked.get(f"{where[:-3]}[0]")
            is_mask = mask.dtype == np.bool_ and mask.ndim in (1, 2)
            if where.endswith("[1]") and values is not None and is_mask:
                self.notes[
                    f"padding of {where[:-3]}[0] {list(values.shape)}: {where} is not read as the "
                    f"mask of {where[:-3]}[0], since its shape {list(mask.shape)} is not that of "
                    "its leading axes; every entry counts"
                ] = None

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

    def _run(
        self,
        layout: Layout,
        x: list[np.ndarray],
        seed: int | None = None,
        *,
        gradients: bool = True,
    ) -> Result:
        seed = seed if self.whole else seed or 0
        return self.program.run(layout, x, seed, gradients=gradients or self.whole)

    def _read(self, layout: Layout, x: list[np.ndarray], seed: int | None = None) -> list[Part]:
        return self._parts(layout, self._run(layout, x, seed))

    def _parts(self, layout: Layout, result: Result) -> list[Part]:
        return parts(result, self.subject, layout, self.program.by_row)

    def _measured(self, layout: Layout, x: list[np.ndarray], seed: int | None = None) -> list[Part]:
        """The results of a layout, with the tolerance of each entry."""
        seeds = range(SAMPLES) if self.by_operation else ()
        return with_tolerance(
            self._read(layout, x, seed), [self._read(layout, x, s) for s in seeds]
        )

    def _runs_by_operation(self) -> bool:
        try:
            self.program.run(self.given, self.baseline, 0)
        except Exception as error:
            self.notes[f"{BY_OPERATION}: {first_line(error)}"] = None
            return False
        return True


def _unequal(pairs: Iterator[tuple[Part, Part]], layout: Layout, under: str) -> Iterator[Witness]:
    for want, got in pairs:
        if (worst := difference(want, got, 0.0)) is not None:
            yield Witness(got.what, got.where, under, layout.move, *worst)
