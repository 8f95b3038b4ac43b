"""Decoding, and the module that decodes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmask as jm
from tests.registry.entry import LABELS, LOGITS, Entry, Input, simple

_IDS = {"nan_stays_in_its_row": "ids cannot hold a nan"}
_ENDS = {"no_mask": "a row ends before its last step, so it makes a mask"}
_TRANSITIONS = np.cos(np.arange(25.0, dtype=np.float32)).reshape(5, 5)
_DECODER = {
    "embedding": np.cos(np.arange(15.0, dtype=np.float32)).reshape(5, 3),
    "out": np.sin(2 * np.arange(15.0, dtype=np.float32)).reshape(3, 5),
}


def _autoregressive(decode: Callable, **options: Any) -> Callable:
    """A row of steps is pooled, and tokens are decoded from what comes of it."""

    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        carry, row_mask = jm.pool.sum(xs[0], masks[0])
        carry = jnp.tanh(carry)  # or half precision has no digit left for what is added below

        def step(carry: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
            carry = jnp.sin(carry + jnp.asarray(params["embedding"], carry.dtype)[ids])
            return carry, carry @ jnp.asarray(params["out"], carry.dtype)

        start = jnp.ones(len(carry), jnp.int32)
        ids, mask = decode(step, carry, start, row_mask, max_length=4, end_id=0, **options)
        return [(ids, mask)]

    return call


def _crf(*, loss: bool) -> dict[str, Any]:
    graph, params, rest = nnx.split(
        jm.nn.CRF(5, transition_init=nnx.initializers.normal(), rngs=nnx.Rngs(0)), nnx.Param, ...
    )

    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        crf = nnx.merge(graph, params, rest, copy=True)
        return [crf.loss(xs[0], masks[0], xs[1]) if loss else crf(xs[0], masks[0])]

    return {"call": call, "params": params}


ENTRIES = [
    Entry("decoding.viterbi", simple(jm.decoding.viterbi, _TRANSITIONS), (LOGITS,), exempt=_IDS),
    Entry(
        "decoding.crf_marginals",
        lambda params, xs, masks, rows: [
            jm.decoding.crf_marginals(xs[0], masks[0], params, start=params[0], end=params[1])
        ],
        (LOGITS,),
        params=_TRANSITIONS,
    ),
    Entry("decoding.ctc_greedy", simple(jm.decoding.ctc_greedy), (LOGITS,), exempt=_IDS | _ENDS),
    Entry(
        "decoding.ctc_beam",
        simple(jm.decoding.ctc_beam, beam_size=3, blank_id=1),
        (Input(features=(4,)),),
        exempt=_IDS | _ENDS,
    ),
    Entry(
        "decoding.greedy",
        _autoregressive(jm.decoding.greedy),
        params=_DECODER,
        exempt=_IDS | _ENDS | {"segments": "tokens come after the rows, one row a segment"},
    ),
    Entry(
        "decoding.beam",
        _autoregressive(jm.decoding.beam, beam_size=3, length_penalty=0.6),
        params=_DECODER,
        exempt=_IDS | _ENDS | {"segments": "tokens come after the rows, one row a segment"},
    ),
    Entry("nn.CRF", **_crf(loss=False), inputs=(LOGITS,), exempt=_IDS),
    Entry("nn.CRF:loss", **_crf(loss=True), inputs=(LOGITS, LABELS)),
]

NOT_MASKED: dict[str, str] = {}
