"""Row functions and row modules under `ragged_vmap`. The functions themselves: `tests/ragged`."""

import jax
from flax import nnx

import jaxmask as jm
from tests.registry.entry import NO_SEGMENTS, Entry, module, simple


class _Block(nnx.Module):
    """A block that knows nothing of masks: attention, a recurrent layer, a normalisation."""

    def __init__(self, rngs: nnx.Rngs):
        self.attention = nnx.MultiHeadAttention(1, 3, decode=False, rngs=rngs)
        self.recurrent = nnx.RNN(nnx.GRUCell(3, 3, rngs=rngs))
        self.norm = nnx.LayerNorm(3, rngs=rngs)

    def __call__(self, x):
        return self.recurrent(x + self.attention(self.norm(x)))


REFUSED = {"segments": NO_SEGMENTS}
_IN_ITS_DTYPE = {"half_precision_at_scale": "the row function computes in the dtype it is given"}
ENTRIES = [
    Entry(
        "ragged_vmap:attention",
        simple(jm.ragged_vmap(lambda row: jax.nn.softmax(row @ row.T) @ row)),
        exempt=REFUSED | _IN_ITS_DTYPE,
    ),
    Entry(
        "ragged_vmap:mean",
        simple(jm.ragged_vmap(lambda row: jax.nn.gelu(row).mean(0))),
        exempt=REFUSED | _IN_ITS_DTYPE,
    ),
    Entry(
        "nn.RaggedVmap",
        **module(lambda rngs: jm.nn.RaggedVmap(_Block(rngs))),
        exempt=REFUSED
        | {"composed": "the scan of Flax's cell refuses float64, in which the law's reference is"},
    ),
]
NOT_MASKED: dict[str, str] = {}
