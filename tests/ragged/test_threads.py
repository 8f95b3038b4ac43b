"""While one thread traces a row function, the others see JAX as it is."""

import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm

X = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
MASK = np.arange(4) < np.array([4, 2])[:, None]


def meanwhile(task):
    """What `task` gives in another thread while this one is inside of a row function."""
    with ThreadPoolExecutor(1) as pool:
        results = []

        def row_function(row):
            results.append(pool.submit(task).result(60))
            return row * 2

        y, _ = jm.ragged_vmap(row_function)(X, MASK)
    np.testing.assert_array_equal(y, np.where(MASK[..., None], 2 * X, 0))
    return results


def of_a_symbol():
    (size,) = jax.export.symbolic_shape("n")
    return bool(size % 2), size == 3, size != 3, bool(size), size in (3, 4), hash(size) != 0


def test_questions_about_other_sizes():
    before = of_a_symbol()
    assert before == (True, False, True, True, False, True)
    assert meanwhile(of_a_symbol) == [before] * 3


def test_associative_scan():
    expected = np.cumsum(X, 1)

    def scan():
        return jax.lax.associative_scan(jnp.add, X, axis=1)

    for y in meanwhile(scan):
        np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_associative_scan_refuses_what_jax_refuses():
    def scan():
        specs = jax.ShapeDtypeStruct(jax.export.symbolic_shape("n, 3"), np.float32)
        with pytest.raises(NotImplementedError, match="non-constant size"):
            jax.eval_shape(lambda x: jax.lax.associative_scan(jnp.add, x), specs)
        with pytest.raises(TypeError, match="should be callable"):
            jax.lax.associative_scan(3, X)
        with pytest.raises(ValueError, match="out of bounds"):
            jax.lax.associative_scan(jnp.add, X, axis=7)
        return True

    assert all(meanwhile(scan))
    assert scan()


def test_exporting():
    def export():
        spec = jax.ShapeDtypeStruct(jax.export.symbolic_shape("n, 3"), np.float32)
        f = jax.jit(lambda x: x if x.shape[0] == 3 else x.sum(0))
        return jax.export.export(f)(spec).out_avals[0].shape

    assert meanwhile(export) == [(3,)] * 3


def test_two_row_functions_at_once():
    """Each waits for the other inside of its row function, so that a lock would never open."""
    barrier = threading.Barrier(2, timeout=60)

    def row_function_of(scale):
        def row_function(row):
            barrier.wait()
            return jax.lax.associative_scan(jnp.add, row * scale)

        return jm.ragged_vmap(row_function)(X, MASK)[0]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(row_function_of, (1.0, 2.0)))
    for scale, y in zip((1.0, 2.0), results, strict=True):
        expected = np.where(MASK[..., None], np.cumsum(X * scale, 1), 0)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_jax_is_asked_again_after_an_error():
    def row_function(row):
        return row if row.shape[0] == 3 else 2 * row

    with pytest.raises(jm.ragged.RaggedTraceError):
        jm.ragged_vmap(row_function)(X, MASK)
    assert of_a_symbol() == (True, False, True, True, False, True)
