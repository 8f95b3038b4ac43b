"""What `leak.check` keeps of a function: nothing that a change of the function makes wrong."""

import gc

import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmask as jm
from jaxmask.leak._proof import kept

X = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
MASK = np.arange(4)[None] < np.array([[4], [2]])


def counted(function):
    calls = []

    def wrapper(x, mask):
        calls.append(x.shape)
        return function(x, mask)

    return wrapper, calls


def test_the_second_check_traces_once():
    function, calls = counted(lambda x, mask: jm.pool.mean(jnp.sin(x), mask))
    first = str(jm.leak.check(function, X, MASK))
    del calls[1:]
    other = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    assert jm.leak.check(function, other, MASK).ok
    assert calls == [X.shape] * 2
    assert str(jm.leak.check(function, X, MASK)) == first


def test_a_function_that_has_changed_is_checked_anew():
    state = {"careful": True, "scale": jnp.ones(3)}

    def function(x, mask):
        y = jnp.where(mask[..., None], x, 0) if state["careful"] else x
        return (y * state["scale"]).sum(1), mask.any(1)

    assert jm.leak.check(function, X, MASK).ok
    state["careful"] = False
    assert not jm.leak.check(function, X, MASK).ok
    state["careful"] = True
    assert jm.leak.check(function, X, MASK).ok
    state["scale"] = jnp.full(3, jnp.nan)
    notes = jm.leak.check(function, X, MASK).not_tested
    assert any("nan for a row alone" in note for note in notes)


def test_a_module_that_has_changed_is_checked_anew():
    class Model(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
            self.careful = True

        def __call__(self, x, mask):
            x = jnp.where(mask[..., None], x, 0) if self.careful else x
            return jm.pool.sum(self.linear(x), mask)

    model = Model()
    assert jm.leak.check(model, X, MASK).ok
    model.linear.kernel[...] += 1
    assert jm.leak.check(model, X, MASK).ok
    model.careful = False
    assert not jm.leak.check(model, X, MASK).ok


def test_another_mask_and_another_shape_are_proved_anew():
    def function(x, mask):  # right only where the last step is padding in every row
        return jnp.where(mask[:, :-1, None], x[:, :-1], 0).sum(1), mask.any(1)

    shorter = MASK[:, :3]
    assert not jm.leak.check(lambda x, mask: function(x, mask), X[:, :3], shorter).ok
    assert not jm.leak.check(function, X, MASK).ok
    filled = np.arange(4)[None] < np.array([[3], [2]])
    assert jm.leak.check(function, X, filled).ok
    assert not jm.leak.check(function, X, MASK).ok
    assert not jm.leak.check(function, X[:, :3], shorter).ok


def test_what_is_kept_goes_with_the_function():
    kept._kept.clear()
    functions = [counted(jm.pool.mean)[0] for _ in range(kept.MOST + 2)]
    for function in functions:
        kept.kept_of(function).once("key", lambda: 1)
    assert len(kept._kept) == kept.MOST
    assert kept.kept_of(functions[-1]).get("key") == 1
    del function, functions
    gc.collect()
    assert not kept._kept
    assert kept.kept_of(3) is not kept.kept_of(3)  # cannot be referred to weakly


def test_methods_are_kept_by_their_object():
    class Model:
        def one(self, x, mask):
            return x, mask

        def other(self, x, mask):
            return x, mask

    model = Model()
    assert kept.kept_of(model.one) is kept.kept_of(model.one)
    assert kept.kept_of(model.one) is not kept.kept_of(model.other)
    assert kept.kept_of(model.one) is not kept.kept_of(Model().one)
