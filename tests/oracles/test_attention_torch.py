"""Weights of attention, and projections of an LSTM, against PyTorch as it is."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from tests.test_attention import MASKS, close, draw, poisoned
from tests.test_transformer import copy_attention

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("layout", MASKS)
def test_weights_are_those_that_torch_returns_for_each_row_alone(layout):
    mask, x = MASKS[layout], draw((3, 5, 8))
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    ours = jm.nn.MultiHeadAttention(2, 8, rngs=nnx.Rngs(0))
    copy_attention(theirs, ours)
    (y, _), weights = ours(poisoned(x, mask), mask, return_weights=True)
    for b in range(2):
        row = torch.tensor(x[b : b + 1, mask[b]])
        out, each = theirs(row, row, row, need_weights=True, average_attn_weights=False)
        close(y[b, mask[b]], out.detach().numpy()[0])
        close(np.asarray(weights)[b][:, mask[b]][:, :, mask[b]], each.detach().numpy()[0])


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("reverse", [False, True])
def test_a_projection_is_that_of_torch(reverse):
    torch.manual_seed(1)
    theirs = torch.nn.LSTM(3, 4, proj_size=2, batch_first=True)
    ours = jm.nn.LSTM(3, 4, projected_features=2, reverse=reverse, rngs=nnx.Rngs(0))
    named = {name: p.detach().numpy() for name, p in theirs.named_parameters()}
    for ours_one, array in (
        (ours.w_x, named["weight_ih_l0"].T),
        (ours.w_h, named["weight_hh_l0"].T),
        (ours.b, named["bias_ih_l0"] + named["bias_hh_l0"]),
        (ours.w_p, named["weight_hr_l0"].T),
    ):
        ours_one[...] = jnp.asarray(array)
    mask, x = MASKS["holes"], draw((3, 5, 3))
    y, _ = ours(poisoned(x, mask), mask)
    for b in range(2):
        row = x[b : b + 1, mask[b]]
        out = theirs(torch.tensor(row[:, ::-1].copy() if reverse else row))[0].detach().numpy()
        close(y[b, mask[b]], out[0, ::-1] if reverse else out[0])
