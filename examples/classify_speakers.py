"""Whose voice is it? A classifier of ragged recordings, in batches of similar length.

    python -m pip install -e ".[speakers]" && python examples/classify_speakers.py
    python examples/classify_speakers.py --small

JapaneseVowels holds 640 utterances of nine speakers, 7 to 29 steps of 12 cepstral coefficients
each. A convolution and two GRUs read one, attention pools its real steps, and a linear layer scores
the speakers. Training and test utterances are those of the data set's own split, and each test
utterance counts once, whatever fills the last batch.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _recordings import COEFFICIENTS, SPEAKERS, read_utterances
from flax import nnx

import jaxmask as jm

BATCH, SHAPES = 32, 3


class Classifier(nnx.Module):
    """`(x, mask)` of utterances to scores `[batch, speaker]` and the mask of rows."""

    def __init__(self, hidden: int, *, rngs: nnx.Rngs):
        grus = [jm.nn.GRU(hidden, hidden, rngs=rngs) for _ in range(2)]
        self.layers = jm.nn.Sequential(
            jm.nn.Conv1D(COEFFICIENTS, hidden, 3, rngs=rngs),
            nnx.gelu,
            jm.nn.Bidirectional(*grus),
            nnx.Dropout(0.3, rngs=rngs),
            jm.nn.AttentionPool(2 * hidden, rngs=rngs),
            nnx.Linear(2 * hidden, SPEAKERS, rngs=rngs),
            needs_mask=True,
        )

    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.layers(x, mask)


@nnx.jit
def train_step(model: Classifier, optimizer: nnx.Optimizer, x, mask, speakers) -> jax.Array:
    def loss_of(model):
        logits, rows = model(x, mask)
        losses = jm.losses.softmax_cross_entropy_with_integer_labels(logits, rows, speakers)
        return jm.losses.reduce(*losses)

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


@nnx.jit
def evaluate(model: Classifier, accuracy, x, mask, speakers):
    logits, rows = model(x, mask)
    return accuracy.update(jnp.argmax(logits, axis=-1), rows, speakers)


def batches_of(part: str, shuffle_seed: int | None = None):
    """Batches `(x, mask, speakers)`; a row that fills the last batch is empty."""
    utterances, speakers = read_utterances(part)
    options = {"max_shapes": SHAPES, "shuffle_seed": shuffle_seed}
    for x, mask, rows in jm.bucket_batches(utterances, BATCH, **options):
        yield x, mask, speakers[rows]


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--small", action="store_true", help="one epoch of a small model")
    options = parser.parse_args()
    epochs, hidden = (1, 8) if options.small else (options.epochs, 48)
    model = Classifier(hidden, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adamw(2e-3), wrt=nnx.Param)
    for epoch in range(epochs):
        losses = [train_step(model, optimizer, *b) for b in batches_of("TRAIN", epoch)]
        if epoch % 5 == 0 or epoch == epochs - 1:
            print(f"epoch {epoch}: cross entropy {float(np.mean(losses)):.3f}")
    model.eval()
    accuracy = jm.metrics.Accuracy.empty()
    for batch in batches_of("TEST"):
        accuracy = evaluate(model, accuracy, *batch)
    right, count = float(accuracy.compute()), len(read_utterances("TEST")[1])
    print(f"{right:.1%} of {count} unheard utterances are given to the right speaker")
    return right


if __name__ == "__main__":
    # What XLA compiles is kept there, so that the next start takes a fraction of the time.
    jax.config.update("jax_compilation_cache_dir", "runs/programs")
    main()
