"""The program that is run: values, and gradients for a fixed random cotangent.

Each shape is traced once for all contents of the padding. It runs operation by operation, and, if
that is asked for, compiled whole, as XLA optimises it.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxmask._types import Array, PyTree, Segments
from jaxmask.leak._barriers import compiler_options, factors
from jaxmask.leak._cotangents import Compared, cotangent
from jaxmask.leak._layouts import Layout
from jaxmask.leak._outputs import Slot, real_entries, slots
from jaxmask.leak._proof.prove import Proofs
from jaxmask.leak._proof.tracing import apart, together
from jaxmask.leak._stepwise import Stepwise
from jaxmask.leak._unsharded import unsharded


@dataclass(frozen=True)
class Result:
    """The results of a run, as NumPy arrays.

    Attributes:
      slots: the arrays of the output.
      real: for each slot, the entries that count; None: all.
      x: gradients in the leaves of `x`, None for leaves without one.
      params: gradients in the parameters, likewise.
    """

    slots: list[Slot]
    real: list[np.ndarray | None]
    x: list[np.ndarray | None]
    params: list[np.ndarray | None]


class Program:
    """The function under test, traced once per shape.

    Attributes:
      slots: the abstract arrays of the output at the given shape.
      by_row: paths of unmasked arrays whose leading axis is the batch.
      in_time: paths of those that also have a time axis.
      why_no_gradients: "" if gradients are taken.
    """

    def __init__(self, proofs: Proofs):
        self.subject = subject = proofs.inputs
        self.proofs = proofs
        proofs.renew()
        self.slots = self.trace(subject.x.arrays, subject.marks)
        self.by_row, self.in_time = self._unmasked_with(0), self._unmasked_with(1)
        self.why_no_gradients = proofs.why_no_gradients(subject.x.arrays, subject.marks)
        self._program = self._values if self.why_no_gradients else self._values_and_gradients
        self._whole = jax.jit(self._program, compiler_options=compiler_options())

    def trace(self, x: list[np.ndarray], marks: np.ndarray) -> list[Slot]:
        """The output at a shape; raises what the function raises."""
        return self.proofs.values(x, marks).slots

    def slots_on(self, layout: Layout, *, gradients: bool) -> list[Slot]:
        """The output on a layout, by the program that will run there: it is traced once."""
        if self.why_no_gradients or not gradients:
            return self.trace(layout.x, layout.marks)
        return self._traced(self._arguments(layout, layout.x))[2]

    def run(
        self,
        layout: Layout,
        x: list[np.ndarray],
        seed: int | None = None,
        *,
        gradients: bool = True,
    ) -> Result:
        """Run on `x`, which is laid out as in `layout` with any content of its padding.

        With a seed it runs operation by operation, and above 0 their rounding is perturbed.
        """
        if seed is not None and (self.why_no_gradients or not gradients):
            return self._values_alone(layout, x, seed)
        args = self._arguments(layout, x)
        results = self._whole(*args) if seed is None else self._stepwise(seed, args)
        output, real, *found = results
        for_x, for_params = found or ([None] * len(x), [None] * len(args[0]))
        lists = (real, for_x, for_params)
        host = [[None if a is None else np.asarray(a) for a in leaves] for leaves in lists]
        return Result(slots(*jax.tree.map(np.asarray, output)), *host)

    def _values_alone(self, layout: Layout, x: list[np.ndarray], seed: int) -> Result:
        """By the program that is proved, so that it need not be traced again."""
        traced = self.proofs.values(x, layout.marks)
        key = "values, to be run", id(traced)
        stepwise = self.proofs.kept.once(key, lambda: Stepwise(traced.closed))
        results = stepwise(factors(seed), *self.subject.params.arrays, *x, layout.marks)
        masks, found = iter(results[len(traced.slots) :]), []
        for slot, array in zip(traced.slots, results, strict=False):
            mask: Any = None if slot.mask is None else next(masks)
            if isinstance(slot.mask, Segments):
                mask = Segments(mask, slot.mask.max_segments)
            found.append(replace(slot, array=array, mask=mask))
        most, focus = self.subject.max_segments, Compared.of(layout).focus
        real = [real_entries(slot, focus, len(layout.marks), most) for slot in found]
        entries = [None if mask is None else np.asarray(mask) for mask in real]
        return Result(found, entries, [None] * len(x), [None] * len(self.subject.params.arrays))

    def _arguments(self, layout: Layout, x: list[np.ndarray]) -> Any:
        return self.subject.params.arrays, x, layout.marks, Compared.of(layout)

    def _stepwise(self, seed: int, args: Any) -> Any:
        stepwise, structure, _ = self._traced(args)
        return jax.tree.unflatten(structure, stepwise(factors(seed), *jax.tree.leaves(args)))

    def _traced(self, args: Any) -> tuple[Stepwise, Any, list[Slot]]:
        def trace() -> tuple[Stepwise, Any, list[Slot]]:
            closed, shapes = jax.make_jaxpr(self._program, return_shape=True)(*args)
            return Stepwise(unsharded(closed)), jax.tree.structure(shapes), slots(*shapes[0])

        key = "to be run", tuple(np.shape(leaf) for leaf in jax.tree.leaves(args))
        return self.proofs.kept.once(key, trace)

    def _values(
        self, params: list[Any], x: list[Any], marks: Array, compared: Compared
    ) -> tuple[Any, ...]:
        output = self.subject.call(params, x, [marks])
        return output, self._real(output, marks, compared)

    def _values_and_gradients(
        self, params: list[Any], x: list[Any], marks: Array, compared: Compared
    ) -> tuple[Any, ...]:
        pull, output = self._pullback(params, x, marks)
        real = self._real(output, marks, compared)
        cotangents = [
            cotangent(
                slot,
                entries,
                compared,
                salt=k,
                by_row=slot.where in self.by_row,
                in_time=slot.where in self.in_time,
            )
            for k, (slot, entries) in enumerate(zip(slots(*output), real, strict=True))
            if slot.differentiable
        ]
        for_params, for_x = pull(cotangents)
        return output, real, for_x, for_params

    def _pullback(self, params: list[Any], x: list[Any], marks: Array) -> tuple[Any, PyTree]:
        """Maps cotangents of the differentiable slots to gradients in `params` and `x`."""
        (some_params, fixed_params), (some_x, fixed_x) = apart(params), apart(x)

        def forward(params: list[Any], inputs: list[Any]) -> tuple[list[Array], PyTree]:
            given = together(params, fixed_params), together(inputs, fixed_x)
            output = self.subject.call(*given, [marks])
            return [slot.array for slot in slots(*output) if slot.differentiable], output

        _, pull, output = jax.vjp(forward, some_params, some_x, has_aux=True)
        return pull, output

    def _real(self, output: PyTree, marks: Array, compared: Compared) -> list[Array | None]:
        most, batch = self.subject.max_segments, len(marks)
        return [real_entries(slot, compared.focus, batch, most) for slot in slots(*output)]

    def _unmasked_with(self, axis: int) -> frozenset[str]:
        """Paths of unmasked arrays whose size along `axis` grows with that of the input's mask."""
        marks = self.subject.marks
        if axis >= marks.ndim:
            return frozenset()
        unmasked = [slot for slot in self.slots if slot.what == "value" and slot.mask is None]
        leading = marks.shape[: axis + 1]
        names = {slot.where for slot in unmasked if slot.array.shape[: axis + 1] == leading}
        if not names:
            return frozenset()
        first = (slice(None),) * axis + (slice(1),)
        arrays = (*self.subject.x.arrays, marks)
        longer = [np.concatenate([array, array[first]], axis=axis) for array in arrays]
        try:
            more = self.trace(longer[:-1], longer[-1])
        except Exception:  # the function closes over an array of this length
            return frozenset(names)
        grown = {s.where for s in more if s.array.shape[axis : axis + 1] == (leading[-1] + 1,)}
        return frozenset(names & grown)
