"""Positions, which count real steps: added to steps, or as a bias of attention."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, _mask_ops, _room, attention, masks, ops
from jaxmask._meshes import spread_like
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Lengths, Mask, Pair
from jaxmask.nn._base import MaskedModule, Module, check_sizes

_small_normal = nnx.initializers.normal(0.02)


class _Positions(MaskedModule):
    """A call counts positions from 0, `run` from the real steps of earlier chunks."""

    features: int

    def _encode(self, positions: Array, dtype: jnp.dtype) -> Array:
        raise NotImplementedError

    def _add(self, x: Array, mask: Mask, start: Lengths | None = None) -> Pair:
        where = type(self).__name__
        _check.floating(x, where)
        _check.shape(x, (*x.shape[:2], self.features), "[batch, time, features]", where, "x")
        real = jnp.ones(x.shape[:2], bool) if mask is None else mask
        positions = masks.positions(real) + (0 if start is None else start[:, None])
        encoded = self._encode(positions, accumulator(x.dtype))
        return ops.fill(ops.fill(x, mask)[0] + encoded.astype(x.dtype), mask)

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Add the encoding of its position to each real step, and return `(y, mask)`."""
        x, mask = _check.pair(x, mask, type(self).__name__, over_time=True)
        return self._add(x, mask)

    def initial_carry(self, batch: int) -> Lengths:
        """No real step yet: zeros `[batch]`, int32."""
        return jnp.zeros(_check.rows(batch, f"{type(self).__name__}.initial_carry"), jnp.int32)

    def run(self, carry: Lengths, x: ArrayLike, mask: Mask = None) -> tuple[Lengths, Pair]:
        """Count on from `carry`, the real steps so far, and return `(carry, (y, mask))`."""
        where = type(self).__name__
        x, mask = _check.pair(x, mask, where, over_time=True, segments=False)
        carry = _counted(carry, x, where)
        real = _mask_ops.real_steps(mask, x.shape[:2])
        return carry + masks.lengths(real), self._add(x, mask, carry)


def _counted(carry: ArrayLike, x: Array, where: str) -> Lengths:
    carry = _check.array(carry, "carry", where)
    _check.shape(carry, x.shape[:1], "[batch]", where, "carry")
    return carry


class SinusoidalPositions(_Positions):
    """Add sines and cosines of the rank of each real step: `jaxmask.attention.sinusoids`.

    Mask class: any. Positions restart in each segment; there is no maximum length.

    Shapes: `x [batch, time, features]` and mask `[batch, time]` to `y` of the shape of `x` and the
    same mask.

    Args:
      features: size of the last axis of `x`, even.
      base: of the wavelengths.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> layer = jm.nn.SinusoidalPositions(2)
      >>> y, _ = layer(jnp.zeros((1, 3, 2)), jnp.array([[False, True, True]]))
      >>> [[round(float(a), 2) for a in step] for step in y[0]]
      [[0.0, 0.0], [0.0, 1.0], [0.84, 0.54]]

    Source: Vaswani et al., 2017, arXiv:1706.03762.
    """

    def __init__(self, features: int, *, base: float = 10000.0):
        attention.sinusoids(jnp.arange(0), features)  # refuses an odd number
        self.features = features
        self.base = base

    def _encode(self, positions: Array, dtype: jnp.dtype) -> Array:
        return attention.sinusoids(positions, self.features, base=self.base, dtype=dtype)


class LearnedPositions(_Positions):
    """Add a learned vector for the rank of each real step.

        y[b, t] = x[b, t] + embedding[rank of t among the real steps of b]

    Mask class: any. Positions restart in each segment.

    A batch whose padded time exceeds `max_length` is refused when traced, since its lengths are
    data. In `run` a real step past `max_length` becomes padding: 0, and False in the mask that
    comes out, which is boolean there for that reason.

    Shapes: `x [batch, time, features]` and mask `[batch, time]` to `y` of the shape of `x` and the
    same mask.

    Args:
      max_length: the most steps that a row may have.
      features: size of the last axis of `x`.
      embedding_init: initializer of the table.
      param_dtype: dtype in which it is stored.
      rngs: source of the `params` random stream.

    Attributes:
      embedding: an `nnx.Param`, `[max_length, features]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.LearnedPositions(4, 2, rngs=nnx.Rngs(0))
      >>> y, _ = layer(jnp.zeros((1, 3, 2)), jnp.array([[False, True, True]]))
      >>> bool((y[0, 1:] == layer.embedding[:2]).all())
      True

    Source: Gehring et al., 2017, arXiv:1705.03122.
    """

    def __init__(
        self,
        max_length: int,
        features: int,
        *,
        embedding_init: nnx.Initializer = _small_normal,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.max_length = _check.count(max_length, "LearnedPositions", "max_length", least=1)
        self.features = _check.count(features, "LearnedPositions", "features", least=1)
        shape = (max_length, features)
        self.embedding = nnx.Param(embedding_init(rngs.params(), shape, param_dtype))

    def _encode(self, positions: Array, dtype: jnp.dtype) -> Array:
        # In `run` the index of padding may lie past the end.
        return spread_like((positions,), _rows_of, self.embedding[...], positions)

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Add to each real step the vector of its position, and return `(y, mask)`."""
        x, mask = _check.pair(x, mask, "LearnedPositions", over_time=True)
        if x.shape[1] > self.max_length:
            raise ValueError(
                f"LearnedPositions: `x` has {x.shape[1]} steps, but the table `max_length` = "
                f"{self.max_length}. Crop the batch with its mask, or build a longer table."
            )
        return self._add(x, mask)

    def run(self, carry: Lengths, x: ArrayLike, mask: Mask = None) -> tuple[Lengths, Pair]:
        """Go on from `carry`, the real steps so far; those past the table become padding."""
        where = "LearnedPositions"
        x, mask = _check.pair(x, mask, where, over_time=True, segments=False)
        carry = _counted(carry, x, where)
        _room.check(self.max_length, where, "the table", "positions")
        real = _mask_ops.real_steps(mask, x.shape[:2])
        fits = real & (carry[:, None] + masks.positions(real) < self.max_length)
        return carry + masks.lengths(real), self._add(x, fits, carry)


_INIT = nnx.initializers.normal(0.02)


class RelativeBias(Module):
    """The relative position bias of T5: one learned number for each bucket and head.

        bias[h, i, j] = embedding[relative_buckets(position[j] - position[i]), h]

    in real steps. It is the `bias=` of `jaxmask.attention.attend` and of attention modules; layers
    that are given one and the same module share its table, as those of T5 do.

    Args:
      num_heads: heads of the queries.
      num_buckets, max_distance, bidirectional: as in `jaxmask.attention.relative_buckets`.
      embedding_init: initializer of `embedding [num_buckets, num_heads]`.
      param_dtype: dtype in which parameters are stored.
      rngs: source of the `params` random stream.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> bias = jm.nn.RelativeBias(2, bidirectional=False, rngs=nnx.Rngs(0))
      >>> layer = jm.nn.MultiHeadAttention(2, 8, causal=True, bias=bias, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((1, 3, 8)), jnp.array([[False, True, True]]))[0].shape
      (1, 3, 8)

    Agrees with T5 of Hugging Face. Source: Raffel et al., 2020, arXiv:1910.10683.
    """

    def __init__(
        self,
        num_heads: int,
        *,
        num_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,
        embedding_init: nnx.Initializer = _INIT,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_sizes("RelativeBias", num_heads=num_heads)
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self._buckets(jnp.zeros((), jnp.int32))  # raises where the sizes do not fit
        shape = num_buckets, num_heads
        self.embedding = nnx.Param(embedding_init(rngs.params(), shape, param_dtype))

    def _buckets(self, distance: Array) -> Array:
        return attention.relative_buckets(
            distance,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
            bidirectional=self.bidirectional,
        )

    def __call__(self, query: Array, key: Array) -> Array:
        """The bias of positions `[batch or 1, 1, query, 1]` and `[batch or 1, 1, 1, key]`."""
        each = self.embedding[...][self._buckets(key - query)[:, 0]]
        return jnp.moveaxis(each, -1, 1)


def _rows_of(table: Array, positions: Array) -> Array:
    return table.at[positions].get(mode="clip")
