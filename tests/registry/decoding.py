"""Decoding, and the module that decodes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmask as jm
from tests.registry.entry import LABELS, LOGITS, NO_SEGMENTS, Entry, Input, simple

_IDS = {"nan_stays_in_its_row": "ids cannot hold a nan"}
_OF_ROWS = {"segments": "tokens come after the rows, one row a segment"}
_ENDS = {"no_mask": "a row ends before its last step, so it makes a mask"}
_TRANSITIONS = np.cos(np.arange(25.0, dtype=np.float32)).reshape(5, 5)
_DECODER = {
    "embedding": np.cos(np.arange(15.0, dtype=np.float32)).reshape(5, 3),
    "out": np.sin(2 * np.arange(15.0, dtype=np.float32)).reshape(3, 5),
}


def _decoder(params: Any, x: jax.Array, mask: Any) -> tuple:
    """A row of steps is pooled, and tokens are decoded from what comes of it."""
    carry, row_mask = jm.pool.sum(x, mask)
    carry = jnp.tanh(carry)  # or half precision has no digit left for what is added below

    def step(carry: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        carry = jnp.sin(carry + jnp.asarray(params["embedding"], carry.dtype)[ids])
        return carry, carry @ jnp.asarray(params["out"], carry.dtype)

    return step, carry, jnp.ones(len(carry), jnp.int32), row_mask


def _autoregressive(decode: Callable, **options: Any) -> Callable:
    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        given = _decoder(params, xs[0], masks[0])
        found = decode(*given, max_length=4, end_id=0, **options)
        if "n_best" not in options:
            return [found]
        (ids, mask), (scores, there) = found
        every = range(options["n_best"])
        return [
            *((ids[:, i], mask[:, i]) for i in every),
            *((scores[:, i], there[:, i]) for i in every),
        ]

    return call


def _sampled(params: Any, xs: list, masks: list, rows: Any) -> list:
    given = _decoder(params, xs[0], masks[0])
    options = {"max_length": 4, "end_id": 0, "temperature": 0.7, "top_k": 4, "top_p": 0.9}
    return [jm.decoding.sample(*given, jax.random.key(0), row_ids=rows, **options)]


def _scored(params: Any, xs: list, masks: list, rows: Any) -> list:
    return [jm.decoding.score(*_decoder(params, xs[0], masks[0]), xs[1], masks[0])]


def _smoothed(params: Any, xs: list, masks: list, rows: Any) -> list:
    options = {"start": params[0], "end": params[1]}
    found = jm.decoding.forward_backward(xs[0], masks[0], params, **options)
    return [found.smoothed, found.forward, found.backward, found.log_likelihood]


def _fused(params: Any, xs: list, masks: list, rows: Any) -> list:
    def scorer(before: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        return ids, jnp.asarray(params)[ids, :4] + jnp.asarray(params)[before, :4]

    start = jnp.zeros(len(xs[0]), jnp.int32)
    options = {"beam_size": 3, "blank_id": 1, "scorer": scorer, "carry": start, "start": start}
    return [jm.decoding.ctc_beam(xs[0], masks[0], **options)]


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
        _fused,
        (Input(features=(4,)),),
        params=_TRANSITIONS,
        exempt=_IDS | _ENDS,
    ),
    Entry(
        "decoding.greedy",
        _autoregressive(jm.decoding.greedy),
        params=_DECODER,
        exempt=_IDS | _ENDS | _OF_ROWS,
    ),
    Entry(
        "decoding.beam",
        _autoregressive(
            jm.decoding.beam, beam_size=3, n_best=2, length_penalty=0.6, no_repeat_ngram_size=2
        ),
        params=_DECODER,
        exempt=_IDS
        | _ENDS
        | _OF_ROWS
        | {
            "gradients_are_slopes": "a search has no gradient; `score` has that of its result",
        },
    ),
    Entry(
        "decoding.ctc_align",
        lambda params, xs, masks, rows: list(
            jm.decoding.ctc_align(xs[0], masks[0], xs[1], masks[1], blank_id=4)
        ),
        (LOGITS, Input(features=(), kind="ids", mask=1, high=4)),
        exempt=_IDS | _ENDS | {"segments": NO_SEGMENTS},
    ),
    Entry(
        "decoding.sample",
        _sampled,
        params=_DECODER,
        exempt=_IDS | _ENDS | _OF_ROWS,
    ),
    Entry("decoding.score", _scored, (Input(), LABELS), params=_DECODER, exempt=_OF_ROWS),
    Entry(
        "decoding.forward_backward",
        _smoothed,
        (LOGITS,),
        params=_TRANSITIONS,
        exempt={"segments": NO_SEGMENTS},
    ),
    Entry("nn.CRF", **_crf(loss=False), inputs=(LOGITS,), exempt=_IDS),
    Entry("nn.CRF:loss", **_crf(loss=True), inputs=(LOGITS, LABELS)),
]

NOT_MASKED: dict[str, str] = {
    "decoding.ForwardBackward": "what `decoding.forward_backward` returns",
}
