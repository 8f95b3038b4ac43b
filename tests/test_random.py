"""Noise is what it should be, and padding does not change it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm

KEY = jax.random.key(0)


def test_dropout_keeps_the_share_and_the_mean():
    x, mask = jnp.ones((40, 50, 20)), jnp.ones((40, 50), bool)
    y, _ = jm.random.dropout(x, mask, KEY, 0.25)
    y = np.asarray(y)
    assert set(np.unique(y.round(5))) == {0.0, np.float32(1 / 0.75).round(5)}
    assert abs((y == 0).mean() - 0.25) < 0.01
    # Rows, steps and features are independent draws.
    for axis in range(3):
        assert np.abs(np.diff(y, axis=axis)).mean() > 0.1


def test_each_key_is_another_draw():
    x, mask = jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool)
    draws = [jm.random.dropout(x, mask, jax.random.key(k), 0.5)[0] for k in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_row_ids_name_rows_independently_of_their_place():
    x, mask = jnp.ones((3, 4, 5)), jnp.ones((3, 4), bool)
    ids = jnp.array([7, 3, 9])
    y, _ = jm.random.dropout(x, mask, KEY, 0.5, row_ids=ids)
    other, _ = jm.random.dropout(x, mask, KEY, 0.5, row_ids=ids[::-1])
    np.testing.assert_array_equal(y, other[::-1])


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_ends_of_the_rate(rate):
    x, mask = jnp.full((1, 2, 3), 5.0), jnp.array([[True, False]])
    value, gradient = jax.value_and_grad(lambda x: jm.random.dropout(x, mask, KEY, rate)[0].sum())(
        x
    )
    assert float(value) == 15 * (1 - rate)
    assert gradient.ravel().tolist() == [1 - rate] * 3 + [0.0] * 3


def test_bad_arguments_are_named():
    x, mask = jnp.ones((1, 2, 3)), jnp.ones((1, 2), bool)
    with pytest.raises(ValueError, match="rate"):
        jm.random.dropout(x, mask, KEY, 1.5)
    with pytest.raises(TypeError, match="floating"):
        jm.random.dropout(x.astype(int), mask, KEY, 0.5)
    with pytest.raises(ValueError, match="row_ids"):
        jm.random.dropout(x, mask, KEY, 0.5, row_ids=jnp.arange(2))
