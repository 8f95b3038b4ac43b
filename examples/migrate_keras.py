"""A Keras model with `mask_zero` and a BiLSTM, moved to Flax with its weights, and trained on.

    python -m pip install keras && python examples/migrate_keras.py
    python examples/migrate_keras.py --small

How many digits has "nine hundred and four"? Keras passes the mask of the embedding to the LSTM, and
its pooling over time ignores it: the padding takes part, and the same name gets other logits beside
a longer one. The converted model gives each name what Keras gives it alone.
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax.numpy as jnp
import keras
import numpy as np
import optax
from _numbers import LETTERS, LONGEST_NAME, MOST_DIGITS, draw_numbers, letters
from flax import nnx

import jaxmask as jm


def build(features: int) -> keras.Model:
    """The model as it was, letter ids from 1 on, 0 for padding."""
    return keras.Sequential(
        [
            keras.layers.Input((None,), dtype="int32"),
            keras.layers.Embedding(1 + len(LETTERS), features, mask_zero=True),
            keras.layers.Bidirectional(keras.layers.LSTM(features, return_sequences=True)),
            keras.layers.GlobalMaxPooling1D(),
            keras.layers.Dense(1 + MOST_DIGITS),
        ]
    )


def batch_of(numbers: list[int]):
    ids, _ = jm.pad_sequences(map(letters, numbers), maxlen=LONGEST_NAME)
    return ids, np.array([len(str(number)) for number in numbers])


@nnx.jit
def train_step(model, optimizer, ids, digits):
    def loss_of(model):
        logits, row_mask = model(ids)  # the embedding makes the mask, as `mask_zero` says
        losses = jm.losses.softmax_cross_entropy_with_integer_labels(logits, row_mask, digits)
        return jm.losses.reduce(*losses)

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--small", action="store_true", help="a few steps of a small model")
    options = parser.parse_args()
    steps, features = (2, 4) if options.small else (options.steps, 32)
    draw = np.random.default_rng(0)

    theirs = build(features)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    theirs.fit(*batch_of(draw_numbers(draw, 64 * steps)), batch_size=64, verbose=0)

    print(jm.interop.explain(theirs))
    ours = jm.interop.from_keras(theirs)

    name = np.array([letters(904)])
    alone = theirs(name)
    batch, _ = batch_of([904, 777_777])  # the same name, padded
    apart = float(jnp.abs(theirs(batch)[0] - alone[0]).max())
    print(f"Keras: beside a longer name its logits move by {apart:.2g}")
    apart = float(jnp.abs(ours(batch)[0][0] - alone[0]).max())
    print(f"jaxmask: they differ from those of Keras for the name alone by {apart:.2g}")
    assert apart < 1e-4

    ours.train()
    optimizer = nnx.Optimizer(ours, optax.adam(3e-3), wrt=nnx.Param)
    for _ in range(steps):
        value = train_step(ours, optimizer, *batch_of(draw_numbers(draw, 64)))
    print(f"Trained on: cross entropy {float(value):.3f}")


if __name__ == "__main__":
    main()
