"""The LSTM in tiles and chunks is the plain scan, in values and in all gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import jaxmask as jm
from jaxmask.recurrent.tiled import engine
from tests.registry.recurrent import lstm_weights

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(7, 11, 3)).astype(np.float32)
CARRY = tuple(DRAW.normal(size=(7, 4)).astype(np.float32) for _ in "hc")
RIGHT = np.arange(11) < np.array([11, 9, 0, 4, 4, 1, 10])[:, None]
MASKS = {
    "none": None,
    "right": RIGHT,
    "left": RIGHT[:, ::-1],
    "holes": DRAW.random((7, 11)) < 0.4,
    "empty": np.zeros((7, 11), bool),
}


@functools.partial(jax.jit, static_argnames=("method", "reverse"))
def run_and_pull(x, mask, weights, carry, method, reverse=False):
    """Everything that comes out, and the gradient of everything that goes in."""

    def run(x, weights, carry):
        carry, (y, _) = jm.recurrent.lstm(x, mask, weights, carry, method=method, reverse=reverse)
        return *carry, y

    y, pull = jax.vjp(run, x, weights, carry)
    return y, pull(tuple(jnp.cos(jnp.arange(a.size)).reshape(a.shape).astype(a.dtype) for a in y))


def assert_same(ours, theirs, rtol=1e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_it_is_the_scan(name, reverse):
    arguments = X, MASKS[name], lstm_weights(), CARRY
    tiled = run_and_pull(*arguments, "tiled", reverse)
    assert_same(tiled, run_and_pull(*arguments, "scan", reverse))


@pytest.mark.parametrize("tiles", [(1, 2), (2, 3), (3, 11), (8, 4)])
def test_any_tile_gives_the_same(tiles, monkeypatch):
    expected = run_and_pull(X, RIGHT, lstm_weights(), CARRY, "scan")
    monkeypatch.setattr(tiled_lstm, "tiles_for", lambda batch, hidden: tiled_lstm.Tiles(*tiles))
    jax.clear_caches()  # what is compiled knows other tiles
    assert_same(run_and_pull(X, RIGHT, lstm_weights(), CARRY, "tiled"), expected)
    jax.clear_caches()


def test_half_precision_keeps_a_wide_carry():
    x = X.astype(jnp.bfloat16)
    weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), lstm_weights())
    tiled = run_and_pull(x, RIGHT, weights, None, "tiled")
    assert [a.dtype for a in tiled[0]] == [jnp.float32, jnp.float32, jnp.bfloat16]
    assert_same(tiled, run_and_pull(x, RIGHT, weights, None, "scan"), rtol=0.05)


def test_lengths_are_data():
    traces = []

    @jax.jit
    def run(mask):
        traces.append(None)
        return jm.recurrent.lstm(X, mask, lstm_weights(), method="tiled")

    for mask in (RIGHT, RIGHT[:, ::-1], RIGHT[::-1]):
        run(mask)
    assert len(traces) == 1


def test_inside_shard_map():
    """The axis of one device is enough to tell whether everything varies as it must."""
    mesh = Mesh(np.array(jax.devices()[:1]), ("rows",))
    rows, whole = PartitionSpec("rows"), PartitionSpec()

    def loss(weights, x, mask):
        _, (y, _) = jm.recurrent.lstm(x, mask, weights, method="tiled")
        return jax.lax.psum(jnp.sum(y**2), "rows")

    sharded = jax.shard_map(loss, mesh=mesh, in_specs=(whole, rows, rows), out_specs=whole)
    gradient = jax.jit(jax.grad(sharded))(lstm_weights(), X, RIGHT)

    def plain(weights):
        _, (y, _) = jm.recurrent.lstm(X, RIGHT, weights)
        return jnp.sum(y**2)

    assert_same(gradient, jax.grad(plain)(lstm_weights()))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers(platform):
    gradient = jax.grad(
        lambda weights, x, mask: jnp.sum(
            jm.recurrent.lstm(x, mask, weights, method="tiled")[1][0] ** 2
        )
    )
    exported = jax.export.export(jax.jit(gradient), platforms=[platform])
    assert exported(lstm_weights(), jnp.asarray(X), jnp.asarray(RIGHT)).platforms == (platform,)


def test_segments_and_resets_are_refused():
    ids = jm.Segments(RIGHT.astype(np.int32), 1)
    for options in ({"mask": ids}, {"mask": RIGHT, "resets": RIGHT}):
        with pytest.raises(jm.MaskError, match='`method="scan"`'):
            jm.recurrent.lstm(X, weights=lstm_weights(), method="tiled", **options)
