"""A Linen module and training loop: functions of jaxmask are plain JAX, so they work inside.

    python examples/linen.py
    python examples/linen.py --small

How many digits has "nine hundred and four"? The module embeds letters, runs `jm.recurrent.gru` on
parameters of its own, pools the real steps, and trains with Flax's `TrainState`.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _numbers import LETTERS, LONGEST_NAME, MOST_DIGITS, draw_numbers, letters
from flax import linen as nn
from flax.training.train_state import TrainState

import jaxmask as jm


class GRU(nn.Module):
    """A Linen layer around the function: `(x, mask) -> (y, mask)`."""

    features: int

    @nn.compact
    def __call__(self, x, mask):
        gates = 3 * self.features
        w_x = self.param("w_x", nn.initializers.lecun_normal(), (x.shape[-1], gates))
        w_h = self.param("w_h", nn.initializers.orthogonal(), (self.features, gates))
        b = self.param("b", nn.initializers.zeros, (gates,))
        _, (y, mask) = jm.recurrent.gru(x, mask, jm.recurrent.GRUWeights(w_x, w_h, b))
        return y, mask


class Classifier(nn.Module):
    features: int

    @nn.compact
    def __call__(self, ids, mask):
        x = nn.Embed(1 + len(LETTERS), self.features)(ids)
        y, mask = GRU(self.features)(x, mask)
        pooled, row_mask = jm.pool.max(nn.LayerNorm()(y), mask)
        return nn.Dense(1 + MOST_DIGITS)(pooled), row_mask


def batch_of(numbers: list[int]):
    ids, mask = jm.pad_sequences(map(letters, numbers), maxlen=LONGEST_NAME)
    return ids, mask, np.array([len(str(number)) for number in numbers])


@jax.jit
def train_step(state: TrainState, ids, mask, digits):
    def loss_of(params):
        logits, row_mask = state.apply_fn(params, ids, mask)
        losses = jm.losses.softmax_cross_entropy_with_integer_labels(logits, row_mask, digits)
        return jm.losses.reduce(*losses)

    loss, gradients = jax.value_and_grad(loss_of)(state.params)
    return state.apply_gradients(grads=gradients), loss


@jax.jit
def evaluate(state: TrainState, accuracy, ids, mask, digits):
    logits, row_mask = state.apply_fn(state.params, ids, mask)
    return accuracy.update(jnp.argmax(logits, axis=-1), row_mask, digits)


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--small", action="store_true", help="a few steps of a small model")
    options = parser.parse_args()
    steps, features = (3, 8) if options.small else (options.steps, 32)
    draw = np.random.default_rng(0)
    ids, mask, digits = batch_of(draw_numbers(draw, 64))
    model = Classifier(features)
    params = model.init(jax.random.key(0), ids, mask)
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(3e-3))
    for step in range(steps):
        state, loss = train_step(state, ids, mask, digits)
        if step % 50 == 0:
            print(f"step {step}: cross entropy {float(loss):.3f}")
        ids, mask, digits = batch_of(draw_numbers(draw, 64))
    accuracy = jm.metrics.Accuracy.empty()
    for _ in range(4):
        accuracy = evaluate(state, accuracy, *batch_of(draw_numbers(draw, 64)))
    print(f"{float(accuracy.compute()):.1%} of 256 numbers have as many digits as it says")
    return float(accuracy.compute())


if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", "runs/programs")
    main()
