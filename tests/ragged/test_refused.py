"""What is refused, and the texts that say so."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import primitives

import jaxmask as jm
from jaxmask.ragged._interpreter import dims
from jaxmask.ragged._interpreter.interpret import REFUSED, RULES
from jaxmask.ragged._interpreter.patches import traced_sizes

X = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
MASK = np.arange(4) < np.array([4, 2])[:, None]

AT_TRACE = {
    "python_loop": (lambda x: sum(x[k] for k in range(x.shape[0])), "scan"),
    "list": (lambda x: jnp.stack(list(x)), "scan"),
    "branch": (lambda x: x if x.shape[0] > 2 else 2 * x, "min_length="),
    "numpy": (lambda x: x * np.sqrt(x.shape[0]), "jnp.sqrt"),
    "float": (lambda x: x / float(x.shape[0]), "jnp.float32"),
    "numpy_arange": (lambda x: x * np.arange(x.shape[0])[:, None], "jnp.arange"),
    "equal": (lambda x: x if x.shape[0] == 3 else 2 * x, "min_length="),
    "not_equal": (lambda x: x if x.shape[0] != 3 else 2 * x, "min_length="),
    "equal_shapes": (lambda x: x if x.shape == (3, 3) else 2 * x, "min_length="),
    "one_of": (lambda x: x if x.shape[0] in (2, 3) else 2 * x, "min_length="),
    "even": (lambda x: x if x.shape[0] % 2 == 0 else 2 * x, "multiple_of="),
    "odd": (lambda x: x if x.shape[0] % 2 else 2 * x, "multiple_of="),
    "permutation": (lambda x: jax.random.permutation(jax.random.key(0), x), "jnp.argsort"),
    "interp": (lambda x: jnp.interp(0.3, x[:, 0], x[:, 1]), "jnp.clip(jnp.sum("),
    "searchsorted": (lambda x: jnp.searchsorted(x[:, 0], x[:, 1]), "jnp.sum(a[:, None] < v"),
}
PRIMITIVES = {
    "fft": lambda x: jnp.fft.fft(x, axis=0),
    "eigh": lambda x: jnp.linalg.eigh(x @ x.T + jnp.eye(x.shape[0]))[0],
    "svd": lambda x: jnp.linalg.svd(x @ x.T)[1],
    "qr": lambda x: jnp.linalg.qr(x)[1],
    "reduce": lambda x: jax.lax.reduce(x, 0.0, lambda a, b: a * 0.5 + b, (0,)),
    "debug_callback": lambda x: (jax.debug.callback(lambda v: None, x), x)[1],
}


@pytest.mark.parametrize("name", AT_TRACE)
def test_python_that_needs_a_number(name):
    f, remedy = AT_TRACE[name]
    with pytest.raises(jm.ragged.RaggedTraceError) as caught:
        jm.ragged_vmap(f, min_length=2)(X, MASK)
    assert remedy in str(caught.value)
    assert "test_refused.py" in str(caught.value)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_primitives_without_a_rule_name_themselves(name):
    with pytest.raises(jm.ragged.UnsupportedPrimitiveError) as caught:
        jm.ragged_vmap(PRIMITIVES[name])(X, MASK)
    text = str(caught.value)
    assert f"`{name}`" in text
    assert "test_refused.py" in text
    assert "jm.ragged.register" in text


def test_questions_that_lengths_decide_are_answered():
    def f(x):
        assert x.shape[0] == x.T.shape[1]
        assert x.shape[0] != 0
        assert x.shape[0] != 9
        assert x.shape[0]
        return x

    jm.ragged_vmap(f)(X, MASK)


def test_equality_is_watched_only_while_a_row_function_is_traced():
    (length,) = jax.export.symbolic_shape("length")
    jm.ragged_vmap(jnp.sin)(X, MASK)
    assert (length == 3) is False
    assert bool(length % 2)


def test_the_functions_own_errors_pass():
    def f(row):
        raise KeyError("my own")

    with pytest.raises(KeyError, match="my own"):
        jm.ragged_vmap(f)(X, MASK)


def test_random_numbers_of_other_keys_are_refused():
    f = lambda x: x + jax.random.normal(jax.random.key(0, impl="rbg"), x.shape)  # noqa: E731
    with pytest.raises(NotImplementedError, match="threefry"):
        jm.ragged_vmap(f)(X, MASK)


def test_a_module_that_would_change_is_refused():
    from flax import nnx

    cell = nnx.RNN(nnx.GRUCell(3, 3, rngs=nnx.Rngs(0)))
    with pytest.raises(jm.ragged.RaggedTraceError, match=r"jm.nn.RaggedVmap\(module\)"):
        jm.ragged_vmap(lambda row: cell(row))(X, MASK)


def test_a_rule_of_the_users_own():
    from jax.extend.core import Primitive

    name = "sum_of_squares_over_time"
    mine = Primitive(name)
    mine.def_abstract_eval(lambda x: jax.core.ShapedArray(x.shape[1:], x.dtype))
    mine.def_impl(lambda x: jnp.sum(x * x, axis=0))
    f = lambda row: mine.bind(row)  # noqa: E731
    with pytest.raises(NotImplementedError, match=name):
        jm.ragged_vmap(f)(X, MASK)

    @jm.ragged.register(name)
    def rule(step, x):
        return jnp.sum(jnp.square(step.fill(0, x, [0], 0)), axis=0)

    try:
        y, _ = jm.ragged_vmap(f)(X, MASK)
    finally:
        del RULES[name]
    np.testing.assert_allclose(y[1], (X[1, :2] ** 2).sum(0), rtol=1e-5)


def test_a_rule_with_a_wrong_shape_is_caught():
    rule = RULES["sin"]
    RULES["sin"] = lambda step, x: x[:1]
    try:
        with pytest.raises(AssertionError, match="the rule of `sin`"):
            jm.ragged_vmap(jnp.sin)(X, MASK)
    finally:
        RULES["sin"] = rule


def test_every_primitive_of_jax_has_a_rule_or_a_line_in_the_list_of_refused_ones():
    """A new release of JAX with a new primitive fails here."""
    names = {getattr(primitives, p).name for p in dir(primitives) if p.endswith("_p")}
    assert len(names) > 150
    assert names - set(RULES) - set(REFUSED) == set()


def test_no_primitive_is_both_supported_and_refused():
    assert not set(RULES) & set(REFUSED)


def test_caches_of_jax_may_compare_sizes():
    """They compare sizes whose hashes collide."""
    (time,) = jax.export.symbolic_shape("time")
    ask = "def ask(a, b): return a == b"
    of_jax: dict = {}
    exec(compile(ask, str(Path(jax.__file__).with_name("core.py")), "exec"), of_jax)
    with traced_sizes(time.scope, dims.Sizes({"time": (1, 9)})):
        assert not of_jax["ask"](time, 4)
        with pytest.raises(Exception, match="'time'"):
            _ = time == 4
