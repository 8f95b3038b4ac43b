"""`.check` catches a function that differs from itself on the row alone, in value or gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm

LENGTHS = (4, 1, 0, 3)


@pytest.fixture
def batch():
    x = np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32)
    mask = np.arange(4) < np.array(LENGTHS)[:, None]
    x[~mask] = np.nan
    return x, mask


def attention(row):
    return jax.nn.softmax(row @ row.T) @ row


@pytest.mark.exhaustive
def test_check_finds_what_is_asked_of_one_length(batch):
    x, mask = batch

    def asks(row):
        return row * 2 if str(row.shape[0]) == "3" else row

    report = jm.ragged_vmap(asks).check(x, mask)
    assert not report.ok
    assert "value at length 3" in str(report)
    assert jm.ragged_vmap(attention).check(x, mask).ok


def test_check_tries_lengths_that_the_batch_lacks():
    x = np.random.default_rng(0).normal(size=(1, 5, 2)).astype(np.float32)

    def asks(row):
        return row * 2 if str(row.shape[0]) == "2" else row

    report = jm.ragged_vmap(asks).check(x, np.ones((1, 5), bool))
    assert "length 2" in report.tried
    assert not report.ok


def test_check_compares_gradients(batch):
    @jax.custom_vjp
    def asks(row):
        return row * 2.0

    def backward(_, g):
        return (g * (3.0 if str(g.shape[0]) == "3" else 2.0),)

    asks.defvjp(lambda row: (asks(row), None), backward)
    report = jm.ragged_vmap(asks).check(*batch)
    assert [line for line in report.findings if "gradient" in line]
    assert not [line for line in report.findings if "value" in line]


def test_check_does_not_raise(batch):
    report = jm.ragged_vmap(lambda row: row if row.shape[0] == 3 else 2 * row).check(*batch)
    assert not report.ok
    assert "cannot be traced" in str(report)
    assert not jm.ragged_vmap(jnp.fft.fft).check(*batch).ok


def layer(slope_at_three):
    """`row @ w`, whose gradient in `w` is another one where the length is 3."""

    @jax.custom_vjp
    def f(row, w):
        return row @ w

    def backward(saved, g):
        row, w = saved
        factor = slope_at_three if str(row.shape[0]) == "3" else 1.0
        return g @ w.T, factor * row.T @ g

    f.defvjp(lambda row, w: (row @ w, (row, w)), backward)
    return lambda row, tree: f(row, tree["w"]) * tree["scale"] + len(tree["name"])


@pytest.mark.parametrize("factor", [2.0, np.nan])
def test_check_compares_gradients_in_shared_parameters(batch, factor):
    shared = {"w": jnp.ones((3, 2)), "scale": 2.0, "name": "static", "steps": jnp.arange(3)}
    report = jm.ragged_vmap(layer(factor), (0, None)).check(*batch, shared)
    (finding,) = report.findings
    assert finding.startswith("gradient of argument 1['w'] at length 3")
    assert jm.ragged_vmap(layer(1.0), (0, None)).check(*batch, shared).ok


def test_check_sees_what_is_left_in_the_padding(batch, monkeypatch):
    g = jm.ragged_vmap(lambda row: 2 * row)
    run = g.run
    leaking = lambda *given: (jnp.where((y := run(*given)[0]) == 0, 1.0, y), None)  # noqa: E731
    monkeypatch.setattr(g, "run", leaking)
    assert "expected 0, got 1" in str(g.check(*batch))
