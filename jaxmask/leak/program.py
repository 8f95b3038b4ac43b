"""The one compiled program: values, and gradients of a fixed random cotangent.

Its inputs are data, so each shape is compiled once, whatever stands in the padding.
"""

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import masks
from jaxmask._types import Array, ArrayLike, PyTree
from jaxmask.leak.layouts import Layout
from jaxmask.leak.outputs import Slot, is_inexact, real_entries, slots
from jaxmask.leak.subject import Subject

Cotangents: TypeAlias = list[np.ndarray | None]


@dataclass(frozen=True)
class Result:
    """What one run gave, as NumPy arrays.

    Attributes:
      slots: the arrays of the output.
      real: for each slot the entries that count, None: all.
      x: gradients of the leaves of `x`, None where one has none.
      params: gradients of the parameters, likewise.
    """

    slots: list[Slot]
    real: list[np.ndarray | None]
    x: list[np.ndarray | None]
    params: list[np.ndarray | None]


class Program:
    """Runs the function of a subject on layouts.

    Attributes:
      slots: the abstract arrays of the output at the given shape.
      gradients: whether gradients are taken.
      why_not: if they are not.
      epsilon: of the coarsest floating point type that occurs anywhere in the function.
    """

    def __init__(self, subject: Subject):
        self.subject = subject
        self._traces: dict[Any, list[Slot]] = {}
        self.slots = self.trace(subject.x.arrays, subject.marks)
        self.epsilon = self._coarsest()
        self.gradients, self.why_not = self._differentiable()
        self._run = jax.jit(self._values_and_gradients if self.gradients else self._values)

    def trace(self, x: list[np.ndarray], marks: np.ndarray) -> list[Slot]:
        """The output at some shape; raises what the function raises."""
        key = tuple(array.shape for array in (*x, marks))
        if key not in self._traces:
            weights, mask = self.subject.params.arrays, self.subject.mask_of(marks)
            self._traces[key] = slots(*jax.eval_shape(self.subject.call, weights, x, mask))
        return self._traces[key]

    def cotangents(self) -> Cotangents:
        """A fixed random cotangent for each slot that takes one."""
        rng = np.random.default_rng(1)
        return [
            rng.normal(size=slot.array.shape).astype(slot.array.dtype)
            if slot.differentiable
            else None
            for slot in self.slots
        ]

    def run(
        self,
        layout: Layout,
        x: list[np.ndarray],
        cotangents: Cotangents,
        params: list[np.ndarray] | None = None,
    ) -> Result:
        """One run: `x` as `layout` places it, whatever its padding holds."""
        subject = self.subject
        weights = subject.params.arrays if params is None else params
        mask = subject.mask_of(layout.marks)
        output, real, *gradients = self._run(weights, x, mask, cotangents, np.int32(layout.focus))
        for_x, for_params = gradients or ([None] * len(x), [None] * len(weights))
        found = slots(*jax.tree.map(np.asarray, output))
        found_for = (real, for_x, for_params)
        host = [[None if a is None else np.asarray(a) for a in leaves] for leaves in found_for]
        return Result(found, *host)

    def _values(
        self, params: list[Array], x: list[Array], mask: Any, _: Cotangents, focus: Array
    ) -> tuple[Any, ...]:
        output = self.subject.call(params, x, mask)
        return output, self._real(output, mask, focus)

    def _values_and_gradients(
        self, params: list[Array], x: list[Array], mask: Any, cotangents: Cotangents, focus: Array
    ) -> tuple[Any, ...]:
        def forward(params: list[Any], inputs: list[Any]) -> tuple[list[Array], PyTree]:
            output = self.subject.call(_join(params, fixed_params), _join(inputs, fixed_x), mask)
            return [slot.array for slot in slots(*output) if slot.differentiable], output

        (moving_params, fixed_params), (moving_x, fixed_x) = _split(params), _split(x)
        _, pull, output = jax.vjp(forward, moving_params, moving_x, has_aux=True)
        real = self._real(output, mask, focus)
        batches = (len(self.subject.marks), mask.shape[0])  # a row mask is padded with rows
        placed = [
            _placed(cotangent, slot.array, entries, focus, batches)
            for cotangent, slot, entries in zip(cotangents, slots(*output), real, strict=True)
            if cotangent is not None
        ]
        for_params, for_x = pull(placed)
        return output, real, for_x, for_params

    def _real(self, output: PyTree, mask: Any, focus: Array) -> list[Array | None]:
        most = self.subject.max_segments
        return [real_entries(slot, focus, mask.shape[0], most) for slot in slots(*output)]

    def _differentiable(self) -> tuple[bool, str]:
        subject = self.subject
        if not any(is_inexact(leaf) for leaf in (*subject.x.arrays, *subject.params.arrays)):
            return False, "no floating point `x` or `params`"
        if not any(slot.differentiable for slot in self.slots):
            return False, "no floating point output"
        mask, focus = subject.mask_of(subject.marks), np.int32(0)
        arguments = (subject.params.arrays, subject.x.arrays, mask, self.cotangents(), focus)
        try:
            jax.eval_shape(self._values_and_gradients, *arguments)
        except Exception as error:
            return False, f"they cannot be taken: {first_line(error)}"
        return True, ""

    def _coarsest(self) -> float:
        subject = self.subject
        mask = subject.mask_of(subject.marks)
        arguments = (subject.params.arrays, subject.x.arrays, mask)
        # A cast to bfloat16 deep inside sets how much rounding differs between shapes.
        text = str(jax.make_jaxpr(subject.call)(*arguments))
        names = {"bf16": "bfloat16", "f16": "float16", "f64": "float64", "c128": "float64"}
        found = set(re.findall(r"\b(bf16|f16|f32|f64|c64|c128)\[", text))
        kinds = (names.get(name, "float32") for name in found)
        return max((float(jnp.finfo(kind).eps) for kind in kinds), default=0.0)


def first_line(error: Exception) -> str:
    """The type of an error and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _split(leaves: list[Any]) -> tuple[list[Any], list[Any]]:
    """Two lists with None for what belongs to the other: what moves, and what cannot."""
    moving = [leaf if is_inexact(leaf) else None for leaf in leaves]
    return moving, [None if is_inexact(leaf) else leaf for leaf in leaves]


def _join(moving: list[Any], fixed: list[Any]) -> list[Any]:
    return [b if a is None else a for a, b in zip(moving, fixed, strict=True)]


def _placed(
    cotangent: ArrayLike, y: Array, real: Array | None, focus: Array, batches: tuple[int, int]
) -> Array:
    """Give the k-th real entry of a row the k-th cotangent, wherever the entry lies here."""
    if real is None:
        return jnp.where(focus == 0, _fit(cotangent, y.shape), 0).astype(y.dtype)
    given, groups = cotangent.shape, groups_of(y.shape[0], batches[1])
    listed = jnp.reshape(real, (groups, -1))
    drawn = jnp.reshape(cotangent, (groups_of(given[0], batches[0]), -1, *given[real.ndim :]))
    drawn = _fit(drawn, (groups, *drawn.shape[1:]))
    if drawn.shape[1]:
        rank = jnp.clip(jnp.cumsum(listed, axis=1) - 1, 0, drawn.shape[1] - 1)
        drawn = jnp.take_along_axis(drawn, masks.expand(rank, drawn.ndim), axis=1)
    drawn = _fit(drawn, (*listed.shape, *y.shape[real.ndim :])).reshape(y.shape)
    return jnp.where(masks.expand(real, y.ndim), drawn, 0).astype(y.dtype)


def groups_of(size: int, batch: int) -> int:
    """How many rows of the input a leading axis splits into: all of them, or it cannot be told."""
    return batch if size and size % batch == 0 else 1


def _fit(x: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Cut or zero-fill each axis at its end."""
    cut = jnp.asarray(x)[tuple(slice(n) for n in shape)]
    return jnp.pad(cut, [(0, n - old) for n, old in zip(shape, cut.shape, strict=True)])
