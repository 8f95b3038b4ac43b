"""A user's function that scores the next token: what it is given, and what it gives back."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops
from jaxmask._steps import filled_with_copies
from jaxmask._types import Array, ArrayLike, Mask, PyTree, RowMask

Step: TypeAlias = Callable[[Any, Array], tuple[Any, Array]]

# In place of the log probability -inf, of which inf - inf would make nan.
NEVER = -1e30


def rows(start: ArrayLike, row_mask: Mask, where: str) -> tuple[Array, RowMask]:
    """The first tokens, safe in empty rows, and which rows are real."""
    start, row_mask = _check.pair(
        start, row_mask, where, segments=False, name="start", mask_name="row_mask"
    )
    if start.ndim != 1 or not jnp.issubdtype(start.dtype, jnp.integer):
        raise TypeError(
            f"{where}: `start` must be [batch], integer, and the mask a row mask [batch]; got "
            f"shape {start.shape} and dtype {start.dtype}."
        )
    real = _mask_ops.real_steps(row_mask, start.shape)
    return filled_with_copies(start, row_mask).astype(jnp.int32), real


def safe_carry(carry: PyTree, row_mask: Mask, batch: int, where: str) -> PyTree:
    """The carry with copies of real rows in the empty ones."""

    def safe(leaf: ArrayLike) -> Array:
        leaf = jnp.asarray(leaf)
        if not leaf.ndim:
            return leaf
        if leaf.shape[0] != batch:
            raise ValueError(
                f"{where}: arrays of `carry` must be [batch, ...] with batch = {batch}, got shape "
                f"{leaf.shape}."
            )
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return filled_with_copies(leaf, row_mask)
        bits = filled_with_copies(jax.random.key_data(leaf), row_mask)
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(leaf))

    return jax.tree.map(safe, carry)


def called(
    step: Step,
    carry: PyTree,
    token: Array,
    where: str,
    *,
    name: str = "step",
    classes: int | None = None,
) -> tuple[PyTree, Array]:
    """`step(carry, token)`, whose result is a carry and logits `[batch, classes]`."""
    _check.function(step, where, name)
    result = step(carry, token)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            f"{where}: {_check.name_of(step)} must give `(carry, logits)`, got "
            f"{_check.kind_of(result)}."
        )
    carry, logits = result
    wide = logits.ndim == 2 and (classes is None or logits.shape[1] == classes)
    if not wide or logits.shape[0] != token.shape[0]:
        raise ValueError(
            f"{where}: {_check.name_of(step)} must give logits [batch, classes] with batch = "
            f"{token.shape[0]}{'' if classes is None else f' and classes = {classes}'}, got shape "
            f"{logits.shape}."
        )
    return carry, logits


def called_on_beams(
    step: Step, carry: PyTree, token: Array, where: str, **options: Any
) -> tuple[PyTree, Array]:
    """`called` for each hypothesis: `token [batch, beam]`, and the carry `[batch, beam, ...]`."""
    axes = jax.tree.map(lambda leaf: 1 if leaf.ndim else None, carry)

    def one(carry: PyTree, token: Array) -> tuple[PyTree, Array]:
        return called(step, carry, token, where, **options)

    return jax.vmap(one, in_axes=(axes, 1), out_axes=(axes, 1))(carry, token)


def hold(active: Array, new: PyTree, old: PyTree) -> PyTree:
    """The new carry of active hypotheses, the old one of others; scalars are always new."""

    def held(a: Array, b: Array) -> Array:
        return jnp.where(_mask_ops.expand(active, a.ndim), a, b) if b.ndim else a

    return jax.tree.map(held, new, old)


def spread(leaf: Array, size: int) -> Array:
    """`[batch, beam, ...]`: repeated for each hypothesis; scalars stay."""
    return jnp.repeat(leaf[:, None], size, axis=1) if leaf.ndim else leaf


def of_parents(leaf: Array, parent: Array) -> Array:
    """`leaf[b, parent[b, k]]` for each hypothesis k; scalars stay."""
    if not leaf.ndim:
        return leaf
    return jnp.take_along_axis(leaf, _mask_ops.expand(parent, leaf.ndim), axis=1)
