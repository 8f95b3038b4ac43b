"""A learned bias of attention by distance; the arithmetic is `jaxmask.attention`."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import attention
from jaxmask._types import Array
from jaxmask.nn._base import check_sizes

_INIT = nnx.initializers.normal(0.02)


class RelativeBias(nnx.Module):
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
