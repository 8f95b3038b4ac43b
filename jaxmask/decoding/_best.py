"""One hypothesis, or the best few with their scores: what every search returns."""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._types import Array

# `Pair`, or `(Pair, Pair)` with `n_best`. Its overloads would repeat every signature.
Decoded: TypeAlias = Any


def checked_n_best(n_best: int | None, where: str, beam_size: int) -> None:
    """None, or at most as many as are kept."""
    if (_check.optional_count(n_best, where, "n_best", least=1) or 0) > beam_size:
        raise ValueError(
            f"{where}: `n_best` must be at most `beam_size` = {beam_size}, got {n_best}."
        )


class Ranked(NamedTuple):
    """Hypotheses `[batch, beam, time]`, best first."""

    ids: Array
    length: Array
    scores: Array
    found: Array

    def best(self) -> tuple[Array, Array]:
        return _in_front(self.ids[:, 0], self.length[:, 0])

    def decoded(self, n_best: int | None) -> Decoded:
        if n_best is None:
            return self.best()
        ids, length, scores, found = (leaf[:, :n_best] for leaf in self)
        return _in_front(ids, jnp.where(found, length, 0)), (jnp.where(found, scores, 0), found)


def _in_front(ids: Array, length: Array) -> tuple[Array, Array]:
    mask = jax.lax.broadcasted_iota(jnp.int32, ids.shape, ids.ndim - 1) < length[..., None]
    return jnp.where(mask, ids, 0), mask
