"""Rows that are spread over explicit axes of a mesh, as `jax.make_mesh` makes them."""

import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

import jaxmask as jm
from tests.test_devices import start, wait

MESH = AbstractMesh((2,), ("rows",), (AxisType.Explicit,))
ROWS = NamedSharding(MESH, PartitionSpec("rows"))
X = jax.ShapeDtypeStruct((4, 5, 3), jnp.float32, sharding=ROWS)
MASK = jax.ShapeDtypeStruct((4, 5), bool, sharding=ROWS)


def test_results_are_those_of_one_device_and_spread_by_row():
    (out,) = wait(start("explicit_axes", devices=2))
    found = json.loads(out)
    assert len(found) == 13
    for name, (difference, spread_as_asked) in found.items():
        assert difference < 1e-5, name
        assert spread_as_asked, name


def test_what_cannot_run_there_says_where_it_can():
    with pytest.raises(ValueError, match=r"ragged_vmap: rows are spread .* `jax.shard_map`"):
        jax.eval_shape(jm.ragged_vmap(lambda x: x.sum()), X, MASK)
    weights = jm.recurrent.LSTMWeights(jnp.ones((3, 8)), jnp.ones((2, 8)), jnp.ones(8))
    for method in ("tiled", "dense"):
        with pytest.raises(
            ValueError, match=rf"{method}.* cannot run: rows are spread .*Pass .auto"
        ):
            jax.eval_shape(
                lambda x, m, by=method: jm.recurrent.lstm(x, m, weights, method=by), X, MASK
            )


def test_skip_padding_and_predicates_run_as_they_are():
    skipped = jm.skip_padding(jm.pool.mean, lengths=(2, 5))
    y, _ = jax.eval_shape(skipped, X, MASK)
    assert y.sharding.spec[0] == "rows"

    def attend(x, mask):
        x = x[:, :, None]
        of = jm.masks.same_segment(jm.Segments(jnp.where(mask, 1, 0), 1))
        return jm.attention.attend(x, mask, x, x, mask, predicate=of)

    assert jax.eval_shape(attend, X, MASK)[0].sharding.spec[0] == "rows"
