"""Attention whose blocks of keys are bounded wrongly."""

from typing import Any
from unittest import mock

import jax.numpy as jnp

import jaxmask as jm
from jaxmask.attention._blocks import forward
from tests.mutants.layer import Subject
from tests.registry import Entry, Input

SELF = Input((2, 2)), Input((2, 2)), Input((2, 2))
ROW_ALONE, LAYOUTS, SEGMENTS = "row_alone", "layouts", "segments"
right = forward.seen_blocks


def bounded(name: str, wrong: Any, law: str, sizes: tuple[int, int], **options: Any) -> Subject:
    """Attention in blocks of `sizes`, which no other test has: what is compiled is kept by them."""

    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        method = jm.attention.Choice("blocks", *sizes)
        with mock.patch.object(forward, "seen_blocks", wrong):
            pair = jm.attention.attend(
                *(xs[0], masks[0], xs[1], xs[2], masks[0]), method=method, **options
            )
        return [pair]

    return Subject(name, Entry(name, call, SELF), law, leaks=False)


def without_last(setting, given, query, key):
    seen = right(setting, given, query, key)
    last = seen.shape[2] - 1 - jnp.argmax(seen[:, :, ::-1], axis=2, keepdims=True)
    return seen & (jnp.arange(seen.shape[2]) != last)


def without_first(setting, given, query, key):
    seen = right(setting, given, query, key)
    return seen & (jnp.arange(seen.shape[2]) != jnp.argmax(seen, axis=2, keepdims=True))


def of_lengths(setting, given, query, key):
    """As if every row were right-padded."""
    length = jnp.sum(key.ids > 0, axis=(1, 2))[:, None, None]
    seen = jnp.arange(key.ids.shape[1]) * key.ids.shape[2] < length
    return jnp.broadcast_to(seen, (*query.ids.shape[:2], key.ids.shape[1]))


def physical(setting, given, query, key):
    """Causal in columns, where ranks count."""
    seen = right(setting, given, query, key)
    column = jnp.arange(seen.shape[2])[None, :] * key.ids.shape[2]
    return seen & (column < jnp.arange(1, seen.shape[1] + 1)[:, None] * query.ids.shape[2] - 1)


def of_first_segment(setting, given, query, key):
    """A block belongs to the sequence of its first step."""
    seen = right(setting, given, query, key)
    return seen & (query.ids[:, :, None, 0] == key.ids[:, None, :, 0])


BLOCKS = [
    bounded("blocks: one too few", without_last, ROW_ALONE, (1, 3)),
    bounded("blocks: one too late", without_first, ROW_ALONE, (1, 2)),
    bounded("blocks: bounds from lengths", of_lengths, LAYOUTS, (3, 2)),
    bounded("blocks: causal in columns", physical, ROW_ALONE, (2, 3), causal=True),
    bounded("blocks: the first segment of each", of_first_segment, SEGMENTS, (3, 3)),
]
