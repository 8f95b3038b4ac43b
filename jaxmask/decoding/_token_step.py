"""A user's function that scores the next token: what it is given, and what it gives back."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _mask_ops
from jaxmask._meshes import rows_like
from jaxmask._steps import filled_with_copies
from jaxmask._types import Array, ArrayLike, Mask, Pair, PyTree, RowMask
from jaxmask.attention import KVCache

Step: TypeAlias = Callable[[Any, Array], tuple[Any, Array | Pair]]

# In place of the log probability -inf, of which inf - inf would make nan.
NEVER = -1e30

# In place of a token that the step could not score, as nan is for numbers.
UNKNOWN = -1


class Scored(NamedTuple):
    """What a step gives."""

    carry: PyTree
    logits: Array
    known: RowMask  # False where the logits say nothing


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
    start = filled_with_copies(start, row_mask).astype(jnp.int32)
    return start, rows_like(start, real)


def safe_carry(carry: PyTree, row_mask: Mask, start: Array, where: str) -> PyTree:
    """The carry with copies of real rows in the empty ones, spread over devices as `start`."""
    (batch,) = start.shape

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

    return rows_like(start, jax.tree.map(safe, carry))


def called(
    step: Step,
    carry: PyTree,
    token: Array,
    where: str,
    *,
    name: str = "step",
    classes: int | None = None,
) -> Scored:
    """`step(carry, token)`: a carry, logits `[batch, classes]`, and the rows that have some."""
    _check.function(step, where, name)
    result = step(carry, token)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            f"{where}: {_check.name_of(step)} must give `(carry, logits)` or "
            f"`(carry, (logits, row_mask))`, got {_check.kind_of(result)}."
        )
    carry, logits = result
    (logits, mask) = logits if isinstance(logits, tuple) and len(logits) == 2 else (logits, None)
    logits, mask = _check.pair(logits, mask, where, segments=False, name="logits")
    wide = logits.ndim == 2 and (classes is None or logits.shape[1] == classes)
    if not wide or logits.shape[0] != token.shape[0]:
        raise ValueError(
            f"{where}: {_check.name_of(step)} must give logits [batch, classes] with batch = "
            f"{token.shape[0]}{'' if classes is None else f' and classes = {classes}'}, got shape "
            f"{logits.shape}."
        )
    known = _mask_ops.real_steps(mask, token.shape)
    _check.shape(known, token.shape, "[batch]", where, f"the mask of {_check.name_of(step)}")
    return rows_like(token, Scored(carry, logits, known & ~_overflowed(carry)))


def _overflowed(carry: PyTree) -> Array:
    """Which rows have lost a step that did not fit in a cache."""
    lost = jnp.array(False)
    for leaf in jax.tree.leaves(carry, is_leaf=lambda leaf: isinstance(leaf, KVCache)):
        lost |= leaf.overflowed if isinstance(leaf, KVCache) else False
    return lost


def refuse_unknown(ids: Array, where: str) -> None:
    """An error for tokens that no step could score, where the host knows the ids."""
    seen = _check.known(ids)
    if seen is not None and (seen == UNKNOWN).any():
        row = int(np.argwhere(seen == UNKNOWN)[0, 0])
        raise ValueError(
            f"{where}: row {row} has a token that could not be scored, since the attention cache "
            "was full or the mask that came with the logits was False. Build the layers with "
            "`max_length=` of at least the prompt and all tokens to come, or give attention a "
            f"`window=`. Under `jax.jit` such a token is {UNKNOWN}."
        )


def called_on_beams(step: Step, carry: PyTree, token: Array, where: str, **options: Any) -> Scored:
    """`called` for each hypothesis: `token [batch, beam]`, and the carry `[batch, beam, ...]`."""
    axes = jax.tree.map(lambda leaf: 1 if leaf.ndim else None, carry)

    def one(carry: PyTree, token: Array) -> tuple[PyTree, Array, RowMask]:
        return tuple(called(step, carry, token, where, **options))

    return Scored(*jax.vmap(one, in_axes=(axes, 1), out_axes=(axes, 1, 1))(carry, token))


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
