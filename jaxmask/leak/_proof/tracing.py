"""The programs that are interpreted: the values, and their gradients for any cotangent."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.interpreters import partial_eval

from jaxmask._types import Array, PyTree, Segments
from jaxmask.leak._outputs import Slot, is_inexact, slots
from jaxmask.leak._proof.domain import Value
from jaxmask.leak._proof.inputs import Inputs
from jaxmask.leak._subject import first_line
from jaxmask.leak._unsharded import unsharded


@dataclass
class Traced:
    """A program and what its results are.

    Attributes:
      closed: the closed jaxpr, without what no result needs.
      slots: the arrays of the output.
      masked: for each slot, whether its mask is a result too, behind all arrays.
      masks: for each slot, what is known of its mask, once the values are interpreted.
    """

    closed: Any
    slots: list[Slot]
    masked: list[bool] = field(default_factory=list)
    masks: list[Value | None] = field(default_factory=list)


def trace_values(inputs: Inputs) -> Traced:
    """The program `(params, x, marks) -> arrays of the output, and their masks`."""
    found: list[Slot] = []

    def program(params: list[Any], x: list[Any], marks: list[Any]) -> list[Any]:
        results = slots(*inputs.call(params, x, marks))
        found[:] = map(_abstract, results)
        masks = [_mask_array(slot.mask) for slot in results if slot.mask is not None]
        return [slot.array for slot in results] + masks

    closed = _traced(program, inputs.params.arrays, inputs.x.arrays, inputs.masks.marks)
    masked = [slot.mask is not None for slot in found]
    return Traced(closed, found, masked)


def trace_gradients(inputs: Inputs, values: Traced) -> Traced | str:
    """The program `(params, x, marks, at real entries, at padding) -> gradients`, or why not.

    The last two operands are cotangents for each differentiable array of the output.
    """
    given = (*inputs.x.arrays, *inputs.params.arrays)
    if not any(is_inexact(leaf) for leaf in given):
        return "no floating point `x` or `params`"
    cotangents = [_zeros(slot.array) for slot in values.slots if slot.differentiable]
    if not cotangents:
        return "no floating point output"

    def program(
        params: list[Any], x: list[Any], marks: list[Any], real: list[Any], padded: list[Any]
    ) -> list[Any]:
        (some, fixed), (some_x, fixed_x) = apart(params), apart(x)

        def forward(params: list[Any], x: list[Any]) -> tuple[list[Array], list[Any]]:
            output = inputs.call(together(params, fixed), together(x, fixed_x), marks)
            kept = [slot for slot in slots(*output) if slot.differentiable]
            return [slot.array for slot in kept], [_mask_array(slot.mask) for slot in kept]

        _, pull, masks = jax.vjp(forward, some, some_x, has_aux=True)
        sent = [_sent(a, b, m) for a, b, m in zip(real, padded, masks, strict=True)]
        for_params, for_x = pull(sent)
        return [*jax.tree.leaves(for_params), *jax.tree.leaves(for_x)]

    arrays = inputs.params.arrays, inputs.x.arrays, inputs.masks.marks
    try:
        closed = _traced(program, *arrays, cotangents, cotangents)
    except Exception as error:  # whatever the function's own derivative raises
        return f"they cannot be taken: {first_line(error)}"
    return Traced(closed, values.slots, masks=values.masks)


def _traced(program: Any, *args: Any) -> Any:
    closed = unsharded(jax.make_jaxpr(program)(*args))
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), True)
    return closed.replace(jaxpr=jaxpr)


def _zeros(array: Any) -> np.ndarray:
    return np.zeros(array.shape, array.dtype)


def _sent(real: Array, padded: Array, mask: Any) -> Array:
    if mask is None:
        return real
    there = mask.astype(bool).reshape(mask.shape + (1,) * (real.ndim - mask.ndim))
    return jnp.where(there, real, padded)


def _mask_array(mask: Any) -> Any:
    return mask.ids if isinstance(mask, Segments) else mask


def _abstract(slot: Slot) -> Slot:
    array = jax.ShapeDtypeStruct(slot.array.shape, slot.array.dtype)
    mask: PyTree = slot.mask
    if mask is not None:
        ids = _mask_array(mask)
        shape: Any = jax.ShapeDtypeStruct(ids.shape, ids.dtype)
        mask = Segments(shape, mask.max_segments) if isinstance(mask, Segments) else shape
    return Slot(slot.what, slot.where, array, mask, slot.mask_where)


def apart(leaves: list[Any]) -> tuple[list[Any], list[Any]]:
    """The leaves with gradients and those without, each with None in place of the others."""
    inexact = [leaf if is_inexact(leaf) else None for leaf in leaves]
    return inexact, [None if is_inexact(leaf) else leaf for leaf in leaves]


def together(inexact: list[Any], fixed: list[Any]) -> list[Any]:
    return [b if a is None else a for a, b in zip(inexact, fixed, strict=True)]
