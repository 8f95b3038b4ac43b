"""A plain Flax transformer for one sentence, trained on padded batches without changing it.

    python examples/ragged_vmap.py
    python examples/ragged_vmap.py --small

The task: given a row of numbers, predict at each step the largest number so far.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxmask as jm

VOCABULARY, FEATURES = 10, 32


class Transformer(nnx.Module):
    """Written for one row: no batch axis, no mask and no padding."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(VOCABULARY, FEATURES, rngs=rngs)
        self.norm = nnx.LayerNorm(FEATURES, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, FEATURES, decode=False, rngs=rngs)
        self.mlp = nnx.Sequential(
            nnx.Linear(FEATURES, 4 * FEATURES, rngs=rngs),
            nnx.gelu,
            nnx.Linear(4 * FEATURES, FEATURES, rngs=rngs),
        )
        self.head = nnx.Linear(FEATURES, VOCABULARY, rngs=rngs)

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = self.embed(ids)
        causal = jnp.tril(jnp.ones((ids.shape[0], ids.shape[0]), bool))
        x = x + self.attention(self.norm(x), mask=causal)
        return self.head(x + self.mlp(x))


def draw_batch(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rows = [draw.integers(0, VOCABULARY, draw.integers(1, 17)) for _ in range(32)]
    return jm.pad_sequences(rows, maxlen=16)


def loss(model: Transformer, ids: jax.Array, mask: jax.Array) -> jax.Array:
    logits, mask = jm.ragged_vmap(model)(ids, mask)
    targets = jax.lax.cummax(jnp.where(mask, ids, 0), axis=1)
    per_step = jm.losses.softmax_cross_entropy_with_integer_labels(logits, mask, targets)
    return jm.losses.reduce(*per_step)


@nnx.jit
def train(model: Transformer, optimizer: nnx.Optimizer, ids: jax.Array, mask: jax.Array):
    value, gradients = nnx.value_and_grad(loss)(model, ids, mask)
    optimizer.update(model, gradients)
    return value


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--small", action="store_true", help="a few steps")
    options = parser.parse_args()
    steps = 2 if options.small else options.steps
    draw, model = np.random.default_rng(0), Transformer(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
    ids, mask = draw_batch(draw)

    def embedded_loss(x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A block of the model on its embeddings, which are floats and can hold nan and inf."""
        return jm.ragged_vmap(lambda row: model.mlp(row + model.attention(model.norm(row))))(
            x, mask
        )

    print(jm.leak.check(embedded_loss, model.embed(ids), mask))
    value = float("nan")
    for step in range(steps):
        value = float(train(model, optimizer, *draw_batch(draw)))
        if step % 30 == 0 or step == steps - 1:
            print(f"step {step}: cross entropy {value:.3f}")
    return value


if __name__ == "__main__":
    main()
