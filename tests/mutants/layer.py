"""What all of these layers do right, so that each is wrong in one place only."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._steps import segments_apart
from tests.registry import Entry, Input
from tests.registry.entry import simple

Body = Callable[[jax.Array, jax.Array], tuple]


def layer(body: Body, *, pooled: bool = False, name: str = "mutant") -> Callable:
    """A masked function of `body(x, real) -> (y, mask)`: checks, `mask=None` and `Segments`."""

    def run(x: Any, mask: Any, **_: Any) -> tuple:
        x, mask = _check.pair(x, mask, name, over_time=True)
        real = jnp.ones(x.shape[:2], bool) if mask is None else mask
        y, out = body(x, real)
        return y, None if mask is None else out

    run.__name__ = name
    return segments_apart(run, pooled=pooled)


def clean(x: jax.Array, real: jax.Array, value: float = 0) -> jax.Array:
    """`x` with a constant in its padding."""
    return jnp.where(real.reshape(*real.shape, *[1] * (x.ndim - real.ndim)), x, value)


def steps(y: jax.Array, real: jax.Array) -> tuple:
    """The pair of a result for each step."""
    return clean(y, real), real


def rows(y: jax.Array, real: jax.Array) -> tuple:
    """The pair of a result for each row."""
    row_mask = jnp.any(real, axis=1)
    return clean(y, row_mask), row_mask


def count(real: jax.Array) -> jax.Array:
    """Real steps of each row, at least 1, to divide `[batch, feature]` by."""
    return jnp.maximum(jnp.sum(real, axis=1), 1)[:, None]


@dataclass(frozen=True)
class Subject:
    """One layer, right or wrong.

    `law`: the law that must catch it. `leaks`: so must `leak.check`, under `moves`, on rows of
    `lengths`.
    """

    name: str
    entry: Entry
    law: str = ""
    leaks: bool = True
    moves: tuple[str, ...] = ()
    lengths: tuple[int, ...] = (5, 3, 1, 2)

    def __str__(self) -> str:
        return self.name


def subject(
    name: str,
    body: Body,
    law: str = "",
    *,
    leaks: bool = True,
    moves: tuple[str, ...] = (),
    pooled: bool = False,
    kind: str = "float",
    mask_class: str = "any",
    lengths: tuple[int, ...] = (5, 3, 1, 2),
) -> Subject:
    """A subject of one input without parameters."""
    call = simple(layer(body, pooled=pooled, name=name))
    entry = Entry(name, call, (Input(kind=kind),), mask_class=mask_class)
    return Subject(name, entry, law, leaks, moves, lengths)


def with_params(
    name: str,
    body: Callable[[Any, jax.Array, jax.Array], tuple],
    params: Any,
    law: str = "",
    *,
    leaks: bool = True,
    moves: tuple[str, ...] = (),
    pooled: bool = False,
) -> Subject:
    """A subject with parameters."""

    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        bound = functools.partial(body, params)
        return [layer(bound, pooled=pooled, name=name)(xs[0], masks[0])]

    return Subject(name, Entry(name, call, params=params), law, leaks, moves)
