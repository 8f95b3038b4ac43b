"""The check of the padding after every rule notices each rule that leaves out its part."""

import contextvars
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from jaxmask.ragged._interpreter import padding
from jaxmask.ragged._interpreter.interpret import RULES
from jaxmask.ragged._interpreter.interpret import run as run_program
from jaxmask.ragged._rules.calls import closed
from tests import rows as tools
from tests.registry import REGISTRY

X = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)
MASK = np.arange(5) < np.array([5, 2, 3])[:, None]
KERNEL = np.ones((1, 1, 3), np.float32)


def bare(step, *values):
    """The primitive on padded values, whose padding is called good."""
    return step.bind(*values)


def bare_bits(step, keys):
    return step.bind(keys, shape=step.context.shape(step.params["shape"]))


def bare_iota(step):
    shape = step.context.shape(step.outputs[0])
    return jax.lax.broadcasted_iota(step.params["dtype"], shape, step.params["dimension"])


def positions(row):
    return jnp.arange(row.shape[0])


BROKEN = {
    "random_bits": (bare_bits, lambda row: jax.random.bits(jax.random.key(0), row.shape[:1])),
    "iota": (bare_iota, positions),
    "cumsum": (bare, lambda row: jnp.cumsum(row, 0)),
    "cummax": (bare, lambda row: jax.lax.cummax(row, 0)),
    "sort": (bare, lambda row: jnp.sort(row, 0)),
    "rev": (bare, lambda row: row[::-1]),
    "scatter-add": (bare, lambda row: row.at[positions(row)].add(row)),
    "conv_general_dilated": (
        lambda step, *values: step.bind(*values, padding=((1, 1),)),
        lambda row: jax.lax.conv_general_dilated(row.T[:, None], KERNEL, (1,), [(1, 1)]),
    ),
}
INSIDE = {
    "jit": lambda row: jax.jit(positions)(row),
    "scan": lambda row: jax.lax.scan(lambda c, _: (c + positions(row), 0), 0 * row[:, 0], None, 2)[
        0
    ],
    "scan over time": lambda row: jax.lax.scan(lambda c, v: (c, positions(row)), 0, row)[1],
    "while": lambda row: jax.lax.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, positions(row)), (0, positions(row))
    )[1],
    "cond": lambda row: jax.lax.cond(row.sum() > 0, positions, lambda r: positions(r) + 1, row),
    "checkpoint": lambda row: jax.checkpoint(lambda v: v[:, 0] * positions(v))(row),
    "custom_jvp": lambda row: jax.nn.relu(row) * positions(row)[:, None],
}


def run(f):
    with padding.checking():
        jax.block_until_ready(jax.jit(jm.ragged_vmap(f))(X, MASK))


@pytest.mark.parametrize("name", BROKEN)
def test_a_rule_that_leaves_its_padding_is_named(name):
    rule, f = BROKEN[name]
    run(f)
    with mock.patch.dict(RULES, {name: rule}), pytest.raises(AssertionError, match=f"{name}, in"):
        run(f)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", INSIDE)
def test_programs_inside_of_programs_are_checked(name):
    run(INSIDE[name])
    broken = mock.patch.dict(RULES, {"iota": bare_iota})
    with broken, pytest.raises(AssertionError, match="iota, in"):
        run(INSIDE[name])


def test_what_a_rule_hands_to_a_program_is_checked():
    def broken(step, *values):
        noise = [v + jnp.arange(v.size).reshape(v.shape) for v in values]
        return run_program(step.context, closed(step.params["jaxpr"]), noise)

    with (
        mock.patch.dict(RULES, {"jit": broken}),
        pytest.raises(AssertionError, match="operand of jit"),
    ):
        run(lambda row: jax.jit(jnp.sin)(row))


def test_gradients_run_with_the_checks():
    def loss(x):
        y, _ = jm.ragged_vmap(lambda row: jax.nn.softmax(row @ row.T) @ jnp.sort(row, 0))(x, MASK)
        return jnp.sum(y)

    plain = jax.jit(jax.grad(loss))(X)
    with padding.checking():
        np.testing.assert_array_equal(jax.jit(jax.grad(loss))(X), plain)


def test_nothing_is_checked_outside():
    traced = contextvars.Context().run(jax.make_jaxpr(jm.ragged_vmap(jnp.sin)), X, MASK)
    assert "callback" not in str(traced)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("entry", [e for e in REGISTRY if "agged" in e.name], ids=str)
@pytest.mark.parametrize("layout", ["right", "left", "holes"])
def test_entries_of_the_registry(entry, layout):
    masks = tools.masks_for(entry, layout)
    xs = tools.arguments(entry, masks, np.arange(4), poison=1)
    jax.jit(functools.partial(tools.value_and_gradients, entry))(
        entry.params, xs, masks, np.arange(4)
    )
