"""Layers that `jm.interop` makes of options that jaxmask has elsewhere."""

import jax
import numpy as np
from flax import nnx

from jaxmask.interop._layers import EmbedWithPadding

IDS, MASK = np.array([[2, 0, 1], [3, 0, 0]]), np.array([[True, True, True], [True, False, False]])


def test_a_padding_id_is_a_step_under_a_mask_and_is_not_trained():
    layer = EmbedWithPadding(4, 2, padding_id=0, rngs=nnx.Rngs(0))
    y, mask = layer(IDS, MASK)
    np.testing.assert_array_equal(mask, MASK)
    table = layer.embedding[...]
    np.testing.assert_array_equal(y, np.where(MASK[..., None], table[IDS], 0))
    slope = nnx.grad(lambda layer: layer(IDS, MASK)[0].sum())(layer).embedding[...]
    np.testing.assert_array_equal(slope, [[0, 0], [1, 1], [1, 1], [1, 1]])


def test_without_a_mask_the_padding_id_is_padding():
    layer = EmbedWithPadding(4, 2, padding_id=0, rngs=nnx.Rngs(0))
    y, mask = jax.jit(lambda ids: layer(ids))(IDS)
    np.testing.assert_array_equal(mask, IDS != 0)
    assert not np.any(y[IDS == 0])
