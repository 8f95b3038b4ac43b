"""Constraints on the next token: `min_length`, `no_repeat_ngram_size`, a forced prefix."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmask import _check, _class_ids, _mask_ops, ops
from jaxmask._types import Array, Pair, RowMask
from jaxmask.decoding._token_step import NEVER


class Constraints(NamedTuple):
    """Constraints on the next token of every hypothesis."""

    end_id: int
    min_length: int
    ngram: int
    prefix: Array | None  # [batch, token], real tokens first
    in_prefix: Array | None  # [batch, token]
    where: str

    def of_classes(self, classes: int) -> "Constraints":
        """Check against the number of classes; an out-of-range prefix token becomes `end_id`."""
        if self.end_id >= classes:
            raise ValueError(
                f"{self.where}: `end_id` must be below the {classes} classes of the logits, got "
                f"{self.end_id}."
            )
        if self.prefix is None:
            return self
        ids, valid = _class_ids.real_ids(self.prefix, self.in_prefix, classes, self.where, "prefix")
        return self._replace(prefix=jnp.where(valid, ids, self.end_id))


def checked_constraints(
    end_id: int,
    max_length: int,
    min_length: int,
    ngram: int,
    prefix: Pair | None,
    real: RowMask,
    where: str,
) -> Constraints:
    max_length = _check.count(max_length, where, "max_length")
    end_id = _check.count(end_id, where, "end_id")
    ngram = _check.count(ngram, where, "no_repeat_ngram_size")
    min_length = _check.count(min_length, where, "min_length")
    if min_length > max_length:
        raise ValueError(
            f"{where}: `min_length` ({min_length}) must not exceed `max_length` ({max_length})."
        )
    if prefix is None:
        return Constraints(end_id, min_length, ngram, None, None, where)
    if not (isinstance(prefix, tuple) and len(prefix) == 2):
        raise TypeError(
            f"{where}: `prefix` must be a pair `(ids, mask)`, got {_check.kind_of(prefix)}."
        )
    ids, mask = _check.pair(*prefix, where, over_time=True, segments=False, name="prefix")
    (batch,) = real.shape
    if ids.ndim != 2 or ids.shape[0] != batch or ids.shape[1] > max_length:
        raise ValueError(
            f"{where}: the ids of `prefix` must be [batch, token] with batch = {batch} and at "
            f"most `max_length` = {max_length} tokens, got shape {ids.shape}."
        )
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"{where}: the ids of `prefix` must be integers, got dtype {ids.dtype}.")
    ids, in_front = ops.compact(ids, _mask_ops.real_steps(mask, ids.shape) & real[:, None])
    return Constraints(end_id, min_length, ngram, ids, _mask_ops.as_bool(in_front), where)


def constrained(values: Array, ids: Array, time: Array, constraints: Constraints) -> Array:
    """Scores `[batch, ..., classes]` of the token at `time`, `NEVER` for those ruled out.

    `ids [batch, ..., max_length]` are the tokens before it.
    """
    constraints = constraints.of_classes(values.shape[-1])
    classes = jax.lax.broadcasted_iota(jnp.int32, values.shape, values.ndim - 1)
    is_end = classes == constraints.end_id
    banned = is_end & (time < constraints.min_length)
    if 0 < constraints.ngram <= ids.shape[-1]:
        banned = banned | _repeats(ids, time, constraints.ngram, values.shape[-1])
    # Where no other token is left, the row ends.
    stuck = is_end & ~jnp.any(~banned & (values > NEVER), axis=-1, keepdims=True)
    given = values
    # Also where the step gives it -inf, which is less than `NEVER`.
    values = jnp.where(stuck, jnp.maximum(values, NEVER / 2), jnp.where(banned, NEVER, values))
    if (
        constraints.prefix is None
        or constraints.in_prefix is None
        or not constraints.prefix.shape[1]
    ):
        return values
    last = constraints.prefix.shape[1] - 1
    forced, is_forced = (
        jnp.take(x, jnp.minimum(time, last), axis=1).reshape(-1, *[1] * (values.ndim - 1))
        for x in (constraints.prefix, constraints.in_prefix)
    )
    # What the step rules out counts 0: beside -inf, scores of what follows would be lost.
    own = jnp.where(classes == forced, jnp.where(given <= NEVER, 0, given), NEVER)
    return jnp.where(is_forced & (time <= last), own, values)


def _repeats(ids: Array, time: Array, size: int, classes: int) -> Array:
    """Which tokens would complete an n-gram that already occurs in `ids[..., :time]`."""
    rows = ids.reshape(-1, ids.shape[-1])
    count = rows.shape[1] - size + 1
    first = jnp.arange(count)[None]
    same = jnp.broadcast_to(first + size - 1 < time, (rows.shape[0], count))
    for i in range(size - 1):
        latest = jnp.take(rows, jnp.maximum(time - size + 1 + i, 0), axis=1)
        same &= rows[:, i : i + count] == latest[:, None]
    found = jnp.zeros((rows.shape[0], classes), bool)
    found = found.at[jnp.arange(rows.shape[0])[:, None], rows[:, size - 1 :]].max(same)
    return found.reshape(*ids.shape[:-1], classes)
