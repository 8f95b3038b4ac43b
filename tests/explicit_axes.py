"""What functions give on one device, and on two by explicit axes of a mesh, written as JSON.

    python -m tests.explicit_axes

A program of its own, for `tests/test_explicit_axes.py`: JAX counts its devices when it starts.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import jaxmask as jm

rng = np.random.default_rng(0)
X, HEADS = rng.normal(size=(4, 5, 4)), rng.normal(size=(4, 5, 2, 4))
IDS, MASK = rng.integers(1, 4, (4, 5)), np.arange(5) < np.array([5, 3, 0, 2])[:, None]
BATCH = {
    "x": X.astype(np.float32),
    "heads": HEADS.astype(np.float32),
    "ids": IDS.astype(np.int32),
    "mask": MASK,
}
TRANSITIONS = rng.normal(size=(4, 4)).astype(np.float32)


def language_model():
    rngs = nnx.Rngs(0)
    block = {"causal": True, "rotary": True, "max_length": 8, "rngs": rngs}
    return jm.nn.Sequential(
        jm.nn.Embed(5, 4, rngs=rngs),
        jm.nn.TransformerEncoderBlock(1, 4, 8, **block),
        nnx.Linear(4, 5, rngs=rngs),
    )


def decoded(params, graph, ids, mask):
    lm = nnx.merge(graph, params)

    def step(carry, ids):
        carry, (logits, mask) = lm.run(carry, ids[:, None])
        return carry, (logits[:, 0], mask[:, 0])

    start, rows = jm.pool.first(ids, mask)
    given = step, lm.initial_carry(4), start, rows
    options = {"max_length": 3, "end_id": 0}
    return (
        jm.decoding.greedy(*given, **options),
        jm.decoding.sample(*given[:3], None, jax.random.key(0), **options),
        jm.decoding.beam(*given, beam_size=2, **options),
        jm.decoding.score(*given[:3], None, ids[:, :3], mask[:, :3]),
    )


def results(x, heads, ids, mask):
    """By row, and those that stand on each device."""
    cache = jm.attention.empty_cache(4, 8, kv_heads=2, head_features=4)
    attend = jm.attention.attend(heads, mask, heads, heads, mask, causal=True, method="blocks")
    by_row = {
        "attend": attend,
        "attend_cached": jm.attention.attend_cached(cache, heads, heads, heads, mask),
        "circle_loss": jm.losses.circle_loss(x, mask, ids),
        "crf": jm.losses.crf(x, mask, ids, TRANSITIONS),
        "info_nce": jm.losses.info_nce(x, mask, x),
        "ntxent": jm.losses.ntxent(x, mask, ids),
        "repeat_each": jm.shape.repeat_each(x, mask, ids, 16),
    }
    probabilities = jax.nn.sigmoid(x[..., 0])
    whole = {
        "AUC": jm.metrics.AUC.empty().update(probabilities, mask, ids > 1),
        "ConfusionMatrix": jm.metrics.ConfusionMatrix.empty(4).update(x, mask, ids),
        "ExactAUC": jm.metrics.ExactAUC.empty(16).update(probabilities, mask, ids > 1),
        "R2Score": jm.metrics.R2Score.empty().update(x[..., 0], mask, x[..., 1]),
    }
    return by_row, whole


def both(params, graph, batch):
    def total(x, heads):
        by_row, whole = results(x, heads, batch["ids"], batch["mask"])
        floats = [y for y in jax.tree.leaves(by_row) if jnp.issubdtype(y.dtype, jnp.floating)]
        return sum(jnp.sum(jnp.sin(y)) for y in floats), (by_row, whole)

    gradients, (by_row, whole) = jax.grad(total, (0, 1), has_aux=True)(batch["x"], batch["heads"])
    by_row |= {"gradients": gradients}
    by_row |= {"decoding": decoded(params, graph, batch["ids"], batch["mask"])}
    return by_row, whole


def difference(one, other):
    """The greatest, of the greatest value of its array."""
    each = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    each = [(np.float64(a), np.float64(b)) for a, b in each]
    return max(float(np.max(abs(a - b)) / max(1, np.max(abs(a)))) for a, b in each)


def main():
    model = language_model()
    model.eval()
    graph, params = nnx.split(model)
    alone = jax.jit(both, static_argnums=1)(params, graph, BATCH)
    mesh = jax.make_mesh((2,), ("rows",))
    with jax.set_mesh(mesh):
        batch = jax.device_put(BATCH, NamedSharding(mesh, PartitionSpec("rows")))
        params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        spread = jax.jit(both, static_argnums=1)(params, graph, batch)
    found = {}
    for one, other, axes in zip(alone, spread, ("rows", None), strict=True):
        for name in one:
            specs = [tuple(y.sharding.spec) for y in jax.tree.leaves(other[name]) if y.ndim]
            as_asked = all((spec or (None,))[0] == axes for spec in specs)
            found[name] = difference(one[name], other[name]), as_asked
    print(json.dumps(found))


if __name__ == "__main__":
    main()
