"""The settings of JAX that careful teams turn on, over the registry: they act while tracing."""

import contextlib
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from tests import rows as tools
from tests.law import law
from tests.registry import REGISTRY

ROWS = np.arange(4, dtype=np.int32)
SEGMENTS = np.array([[1, 1, 2, 2, 0], [0, 1, 2, 0, 0]] * 2, np.int32)

# Given float32 statistics or carries beside half precision, these promote unasked.
_FLAX_NORM = "nnx.LayerNorm itself fails in half precision under strict promotion"
_FLAX_CELL = "a cell of Flax meets jaxmask's float32 carry, and promotes both unless it has a dtype"
_OF_THE_REGISTRY = "the row function that the registry gives it promotes"
NOT_IN_HALF = {
    "nn.TransformerEncoderBlock": _FLAX_NORM,
    "nn.TransformerDecoderBlock": _FLAX_NORM,
    "nn.Passthrough": _FLAX_NORM,
    "nn.Sequential": _FLAX_NORM,
    "nn.Sequential:causal": _FLAX_NORM,
    "nn.RNN:LayerNormLSTMCell": _FLAX_CELL,
    "nn.RNN:LSTMCell": _FLAX_CELL,
    "nn.RNN:GRUCell": _FLAX_CELL,
    "nn.RNN:ZoneoutCell": _FLAX_CELL,
    "nn.RNN:ConvLSTMCell": _FLAX_CELL,
    "nn.StackedRNN": _FLAX_CELL,
    "nn.RaggedVmap": _OF_THE_REGISTRY,
    "recurrent.scan": _OF_THE_REGISTRY,
}


def pytest_generate_tests(metafunc):
    """Every eighth entry in the slower tests, all of them with `--all`."""
    if "sampled" in metafunc.fixturenames:
        step = 1 if metafunc.config.getoption("--all") else 8
        metafunc.parametrize("sampled", REGISTRY[::step], ids=str)


@contextlib.contextmanager
def strict():
    """Nothing is promoted unasked, no dtype by another and no rank by another."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@contextlib.contextmanager
def checked():
    """JAX looks at its own bookkeeping, and for tracers that outlive their trace."""
    with jax.enable_checks(True), jax.checking_leaks():
        yield


def trace(entry, masks=None, dtype=np.float32):
    """Trace the values and all gradients, in a function that no cache of JAX has seen."""
    padded = tools.masks_for(entry, "right")
    xs = tools.arguments(entry, padded, ROWS, dtype=dtype)
    is_float = [jnp.issubdtype(x.dtype, jnp.floating) for x in xs]
    floats = [x for x, float_ in zip(xs, is_float, strict=True) if float_]

    def cast(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    def with_gradients(params, floats, masks, rows):
        def results(params, floats):
            given = iter(floats)
            arrays = [next(given) if float_ else x for x, float_ in zip(xs, is_float, strict=True)]
            pairs = entry.call(params, arrays, masks, rows)
            return [y for y, _ in pairs if jnp.issubdtype(y.dtype, jnp.floating)], pairs

        ys, pull, pairs = jax.vjp(results, params, floats, has_aux=True)
        return pairs, pull([jnp.ones_like(y) for y in ys])

    params = jax.tree.map(cast, entry.params)
    return jax.eval_shape(with_gradients, params, floats, masks or padded, ROWS)


def segments(entry):
    ids = jm.Segments(jnp.asarray(SEGMENTS), 2)
    return [ids] * (1 + max(spec.mask for spec in entry.inputs))


def takes_segments(entry):
    return "segments" not in entry.exempt


@law(of_every_call=False)
def test_nothing_is_promoted_unasked(entry):
    with strict():
        trace(entry)
        if takes_segments(entry):
            trace(entry, segments(entry))


def test_half_precision_is_not_promoted_unasked(sampled):
    with strict():
        if sampled.name not in NOT_IN_HALF:
            trace(sampled, dtype=jnp.bfloat16)
            return
        with pytest.raises(Exception, match="promotion"):  # else the exemption is out of date
            trace(sampled, dtype=jnp.bfloat16)


@pytest.mark.sampled(5)
def test_under_the_checks_of_jax(sampled):
    with checked():
        trace(sampled)


def test_the_settings_are_seen():
    """A function that was traced without them is traced again."""
    x = jnp.ones((2, 3))
    for f in (lambda x: x + jnp.arange(3.0), lambda x: x + jnp.ones((2, 3), jnp.int32)):
        jax.eval_shape(f, x)
        with pytest.raises(Exception, match="promotion"), strict():
            jax.eval_shape(f, x)


def test_exemptions_name_entries():
    assert Counter(entry.name for entry in REGISTRY) >= Counter(NOT_IN_HALF.keys())
