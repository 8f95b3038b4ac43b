"""What cross attention reads: a sequence and its mask, or their keys and values."""

from typing import NamedTuple, TypeAlias

from jaxmask import _check
from jaxmask._types import Array, ArrayLike, Mask, Pair


class ProjectedMemory(NamedTuple):
    """Keys and values of a memory, made once for all the chunks that attend to it.

    `CrossAttention.project` and `TransformerDecoderBlock.project` make it, for the same layer to
    take instead of the memory.

    Attributes:
      k: `[batch, memory_time, kv_heads, head_features]`, 0 in the padding.
      v: like `k`.
      mask: `[batch, memory_time]`, boolean, or `Segments`, or None: every step is real.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.CrossAttention(2, 8, memory_features=4, rngs=nnx.Rngs(0))
      >>> memory = layer.project(jnp.ones((1, 5, 4)), jnp.ones((1, 5), bool))
      >>> memory.k.shape, layer(jnp.ones((1, 2, 8)), None, memory)[0].shape
      ((1, 5, 2, 4), (1, 2, 8))
    """

    k: Array
    v: Array
    mask: Mask


Memory: TypeAlias = ArrayLike | ProjectedMemory


def memory_pair(memory: ArrayLike, memory_mask: Mask, mask: Mask, where: str) -> Pair:
    """Check a memory and that its mask goes with that of the queries."""
    memory, memory_mask = _check.pair(
        memory, memory_mask, where, over_time=True, name="memory", mask_name="memory_mask"
    )
    _check.packed((mask, memory_mask), where, "`mask` and `memory_mask`")
    return memory, memory_mask
