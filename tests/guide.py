"""Data of the guides to masking, and layers that their readers write, for a JAX user."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxmask as jm

SENTENCES = [[711, 632, 71], [73, 8, 3215, 55, 927], [83, 91, 1, 645, 1253, 927]]
SENTENCE_MASK = [
    [True, True, True, False, False, False],
    [True, True, True, True, True, False],
    [True, True, True, True, True, True],
]
SHORT = [[1, 2, 3], [4, 5], [1, 4, 8, 19]]
LADDER = [
    [True, False, False, False],
    [True, True, False, False],
    [True, True, True, False],
    [True, True, True, True],
]


def sentences():
    """S1 as JAX arrays: ids and their mask."""
    return jax.tree.map(jnp.asarray, jm.pad_sequences(SENTENCES))


def tiled_sentences():
    """The ids of S1 as floats, each ten times: `[3, 6, 10]`."""
    ids, _ = sentences()
    return jnp.tile(ids[..., None].astype(jnp.float32), (1, 1, 10))


def growing_rows():
    """Row b holds 10, 20, ... in its first b + 1 steps and 0 after: `[4, 4, 2]`."""
    steps = jnp.where(jnp.array(LADDER), jnp.array([10.0, 20.0, 30.0, 40.0]), 0.0)
    return jnp.stack([steps, steps], axis=-1)


def embed_and_lstm(**options):
    rngs = nnx.Rngs(0)
    return (
        jm.nn.Embed(5000, 16, mask_zero=True, rngs=rngs),
        jm.nn.LSTM(16, 32, return_sequences=False, rngs=rngs, **options),
    )


class MyActivation:
    """Acts on each step alone and knows nothing of masks; not even an `nnx.Module`."""

    def __call__(self, x):
        return jnp.maximum(x, 0)


def temporal_softmax_by_hand(x, mask=None):
    """A right one is not short: the mask is needed before `exp`, after it, and in the total."""
    real = jnp.ones(x.shape[:2], bool) if mask is None else mask
    real = real[:, :, None]
    top = jnp.max(jnp.where(real, x, jnp.finfo(x.dtype).min), axis=1, keepdims=True)
    weights = jnp.where(real, jnp.exp(jnp.where(real, x - top, 0)), 0)
    total = jnp.sum(weights, axis=1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)


temporal_softmax = pytest.mark.parametrize(
    "softmax",
    [
        temporal_softmax_by_hand,
        lambda x, mask=None: jm.ops.softmax(x, mask)[0],
    ],
    ids=["by hand", "jm.ops.softmax"],
)


class MyMeanPool(nnx.Module):
    """Averages the real steps; the mask that comes out marks rows that had one."""

    def __call__(self, x, mask=None):
        if mask is None:
            return jnp.mean(x, axis=1), None
        total = jnp.sum(jnp.where(mask[:, :, None], x, 0), axis=1)
        count = jnp.sum(mask, axis=1, keepdims=True)
        return total / jnp.maximum(count, 1), jnp.any(mask, axis=1)


mean_pools = pytest.mark.parametrize("pool", [MyMeanPool(), jm.nn.GlobalMeanPool(), jm.pool.mean])


def my_flatten(x, mask):
    """Method 1: make the mask as wide as the data and reshape both."""
    wide = jnp.broadcast_to(mask[:, :, None], x.shape)
    return x.reshape(x.shape[0], -1), wide.reshape(x.shape[0], -1)


def my_flatten_by_repeating(x, mask):
    """Method 2: repeat each step's bit for its features."""
    return x.reshape(x.shape[0], -1), jnp.repeat(mask, x.shape[2], axis=1)


def my_sum(x, mask):
    return jnp.sum(jnp.where(mask, x, 0), axis=1)


flattens = pytest.mark.parametrize(
    "flatten", [my_flatten, my_flatten_by_repeating, jm.nn.Flatten()]
)
