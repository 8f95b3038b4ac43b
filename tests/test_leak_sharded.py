"""`leak` on functions under `shard_map`: what devices exchange mixes rows, and specs say how."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun
from jax.sharding import AbstractMesh, PartitionSpec

import jaxmask as jm
from jaxmask.leak._unsharded import unsharded

MESH = AbstractMesh((2, 2), ("rows", "model"))  # no devices: it is only traced
ROWS, NONE = PartitionSpec("rows"), PartitionSpec()
X = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
MASK = np.arange(6) < np.array([[6], [6], [3], [1]])
LSTM = jm.recurrent.LSTMWeights(*(jnp.ones(shape) for shape in ((2, 8), (2, 8), (8,))))


def spread(local, out=ROWS, given=ROWS, mesh=MESH, **options):
    return jax.shard_map(local, mesh=mesh, in_specs=given, out_specs=out, **options)


def real(x, mask):
    return jnp.where(mask[..., None], x, 0)


def over_devices(x, mask):
    count = jax.lax.psum(mask.sum(), "rows")
    return real(x, mask) / count, mask


def padding_over_devices(x, mask):
    return real(x - jax.lax.psum(x.sum(), "rows") / 12, mask), mask


def rows_of_the_neighbour(x, mask):
    return jax.lax.ppermute(real(x, mask), "rows", [(0, 1), (1, 0)]).sum(1), mask.any(1)


SAME = {
    "pool.mean": (jm.pool.mean, "proved", "proved"),
    "lstm": (lambda x, m: jm.recurrent.lstm(x, m, LSTM)[1], "proved", "proved"),
    "a count of all devices": (over_devices, "proved", "proved"),
    "a sum of all devices": (padding_over_devices, "not proved", "not proved"),
    "the neighbour": (rows_of_the_neighbour, "proved", "not proved"),
}


@pytest.mark.parametrize("name", SAME)
def test_it_is_proved_or_convicted_as_on_one_device(name):
    local, padding, rows = SAME[name]
    proof = jm.leak.prove(spread(local), X, MASK)
    assert proof.values == padding, str(proof)
    assert not proof.unknown
    assert jm.leak.prove(spread(local), X, MASK, of="rows").values == rows
    if padding == "not proved":
        assert f"{__file__}:" in str(proof)
        assert "jax.lax.psum(x.sum()" in str(proof)


def test_a_check_runs_it_on_one_device():
    assert jm.leak.check(spread(jm.pool.mean), X, MASK).ok
    (finding,) = jm.leak.check(spread(padding_over_devices), X, MASK).findings
    assert finding.place.file == __file__
    assert "sum or mean over an axis with padding" in str(finding)


@pytest.mark.parametrize("rows", [[6, 6, 3, 1], [3, 1, 6, 6]])
def test_copies_that_differ_are_not_taken_for_one(rows):
    """Without its checks, `shard_map` takes the word of `out_specs` for it."""
    mask = np.arange(6) < np.array(rows)[:, None]
    proof = jm.leak.prove(spread(lambda x, m: x.sum(), out=NONE, check_vma=False), X, mask)
    assert proof.values != "proved"
    agreed = spread(lambda x, m: jax.lax.psum(real(x, m).sum(), "rows"), out=NONE, check_vma=False)
    assert jm.leak.prove(agreed, X, mask).values == "proved"


W = np.arange(16.0, dtype=np.float32).reshape(4, 4)
COLLECTIVES = {
    "psum": (lambda w: jax.lax.psum(w, "rows"), W[:2] + W[2:]),
    "pmax": (lambda w: jax.lax.pmax(w, "rows"), W[2:]),
    "pmin of both axes": (lambda w: jax.lax.pmin(w, ("rows", "model")), W[:2]),
    "axis_index": (lambda w: w * jax.lax.axis_index("rows"), np.concatenate([0 * W[:2], W[2:]])),
    "all_gather": (lambda w: jax.lax.all_gather(w[:1], "rows", tiled=True), W[[0, 2]]),
    "ppermute": (lambda w: jax.lax.ppermute(w, "rows", [(0, 1)]), [*(0 * W[:2]), *W[:2]]),
    "psum_scatter": (
        lambda w: jax.lax.psum_scatter(w, "rows", tiled=True),
        [W[0] + W[2], W[1] + W[3]],
    ),
    "all_to_all": (
        lambda w: jax.lax.all_to_all(w, "rows", 1, 0, tiled=True),
        np.concatenate([W[:, :2], W[:, 2:]]),
    ),
    "scan": (
        lambda w: jax.lax.scan(lambda c, v: (c, jax.lax.psum(c + v, "rows")), w[0], w)[1],
        W[0] + W[:2] + W[2] + W[2:],
    ),
}


@pytest.mark.parametrize("name", COLLECTIVES)
def test_what_devices_exchange(name):
    local, want = COLLECTIVES[name]
    whole = np.shape(want)[0] == 2 and name not in ("psum_scatter",)
    function = spread(local, out=NONE if whole else ROWS, check_vma=False)
    closed = unsharded(jax.make_jaxpr(function)(W))
    assert "shard_map" not in str(closed)
    (got,) = jaxpr_as_fun(closed)(W)
    np.testing.assert_array_equal(got, want)


def test_specs_deal_out_axes():
    specs = PartitionSpec(("model", "rows"), None), PartitionSpec(None, "model")
    function = spread(lambda a, b: (2 * a, b[:, :1]), specs, specs, check_vma=False)
    a, b = jaxpr_as_fun(unsharded(jax.make_jaxpr(function)(W, W)))(W, W)
    np.testing.assert_array_equal(a, 2 * W)
    np.testing.assert_array_equal(b, W[:, [0, 2]])


ON_DEVICES = """
import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh

import jaxmask as jm
from jaxmask.leak._unsharded import unsharded
from tests import soundness
from tests.test_leak_sharded import *
from tests.test_proof import STEPS, compare_random

mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("rows", "model"))
for local, _ in COLLECTIVES.values():
    function = spread(local, mesh=mesh, check_vma=False)
    want = jax.jit(function)(W)
    np.testing.assert_array_equal(jaxpr_as_fun(unsharded(jax.make_jaxpr(function)(W)))(W)[0], want)
for check in (True, False):
    for local, *_ in SAME.values():
        function = spread(local, mesh=mesh, check_vma=check)
        def loss(x):
            return (function(x, MASK)[0] ** 2).sum()
        closed = unsharded(jax.make_jaxpr(jax.grad(loss))(X))
        np.testing.assert_allclose(*jaxpr_as_fun(closed)(X), jax.grad(loss)(X), rtol=1e-4)
for names in (["fill", "softmax"], ["window"], ["fill", "sort", "batch"], ["dense", "fill"]):
    def local(x, m):
        for name in names:
            x = STEPS[name](x, m)
        return x + jax.lax.psum(real(x, m).max(), "rows"), m
    sharded = spread(local, mesh=mesh)
    proof = jm.leak.prove(lambda x, m: [sharded(x[0], m[0])], [X], [MASK], witness=False)
    soundness.assert_holds(proof, lambda x, m: [jax.jit(sharded)(x[0], m[0])], [X], [MASK])
print("equal")
"""


@pytest.mark.exhaustive
def test_on_four_devices():
    xla = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    path = os.pathsep.join(p for p in sys.path if p) or "."
    done = subprocess.run(
        [sys.executable, "-c", ON_DEVICES],
        env={**os.environ, "XLA_FLAGS": xla, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "equal", done.stderr
