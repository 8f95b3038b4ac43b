"""Linear recurrences."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

import jaxmask as jm
from tests.registry.entry import Call, Entry, Input, module, recurrent


def _linear(**options: Any) -> Call:
    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        carry, pair = jm.recurrent.linear(xs[0], masks[0], xs[1], **options)
        return [pair, (carry, None)]

    return call


def _module(kind: type, *sizes: int, **options: Any) -> Callable[[nnx.Rngs], nnx.Module]:
    return lambda rngs: kind(*sizes, rngs=rngs, **options)


ENTRIES = [
    Entry("recurrent.linear", _linear(), (Input(), Input())),
    Entry("recurrent.linear:reverse", _linear(reverse=True), (Input(), Input())),
    Entry(
        "recurrent.linear:of_x",
        recurrent(lambda params, x, mask: jm.recurrent.linear(x, mask, jnp.full_like(x, 0.5))),
        linear=True,
    ),
    Entry("nn.MinGRU", **module(_module(jm.nn.MinGRU, 3, 4), streams=True)),
    Entry("nn.MinLSTM", **module(_module(jm.nn.MinLSTM, 3, 4), streams=True)),
    Entry("nn.RGLRU", **module(_module(jm.nn.RGLRU, 3), streams=True)),
]

NOT_MASKED: dict[str, str] = {}
