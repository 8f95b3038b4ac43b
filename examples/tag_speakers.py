"""Who speaks when? A convolution, a BiLSTM and a conditional random field on ragged recordings.

    python -m pip install -e ".[examples,speakers]" && python examples/tag_speakers.py
    python examples/tag_speakers.py --small

JapaneseVowels holds 640 utterances of nine speakers, 7 to 29 steps of 12 cepstral coefficients
each. Here utterances are joined into conversations of two to six turns, and the model predicts who
is speaking at each step. Training and test utterances are those of the data set's own split.
Conversations differ in length, and nothing below depends on how much padding there is.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _recordings import COEFFICIENTS, SPEAKERS, read_utterances
from flax import nnx
from rich.progress import track

import jaxmask as jm

MOST_TURNS, BATCH = 6, 32


class Conversations(NamedTuple):
    """A padded batch of steps, who speaks at each, and which steps are real."""

    x: np.ndarray  # [batch, time, 12], float32
    speakers: np.ndarray  # [batch, time], int32
    mask: np.ndarray  # [batch, time], bool


# --------------------------------------------------------------------------------------- data


def converse(
    utterances: list[np.ndarray], speakers: np.ndarray, count: int, draw: np.random.Generator
) -> Conversations:
    """Join utterances at random; no speaker has two turns in a row."""
    values, tags = [], []
    for turns in draw.integers(2, MOST_TURNS + 1, count):
        chosen: list[int] = []
        while len(chosen) < turns:
            k = int(draw.integers(len(utterances)))
            if not chosen or speakers[k] != speakers[chosen[-1]]:
                chosen.append(k)
        values.append(np.concatenate([utterances[k] for k in chosen]))
        tags.append(np.repeat(speakers[chosen], [len(utterances[k]) for k in chosen]))
    # One shape for every batch, so that the step compiles once.
    longest = MOST_TURNS * max(map(len, utterances))
    x, mask = jm.pad_sequences(values, maxlen=longest)
    padded_tags, _ = jm.pad_sequences(tags, maxlen=longest)
    return Conversations(x, padded_tags, mask)


# -------------------------------------------------------------------------------------- model


class Tagger(nnx.Module):
    """Scores of each speaker at each step, and of each transition between speakers."""

    def __init__(self, hidden: int, *, rngs: nnx.Rngs):
        self.scores = jm.nn.Sequential(
            jm.nn.Conv1D(COEFFICIENTS, hidden, 5, rngs=rngs),
            nnx.gelu,
            nnx.LayerNorm(hidden, rngs=rngs),
            jm.nn.Bidirectional(
                jm.nn.LSTM(hidden, hidden, rngs=rngs), jm.nn.LSTM(hidden, hidden, rngs=rngs)
            ),
            nnx.Dropout(0.3, rngs=rngs),
            nnx.Linear(2 * hidden, SPEAKERS, rngs=rngs),
        )
        self.crf = jm.nn.CRF(SPEAKERS, rngs=rngs)

    def loss(self, x: jax.Array, mask: jax.Array, speakers: jax.Array) -> jax.Array:
        """Negative log-likelihood of the speakers, per real step."""
        logits, mask = self.scores(x, mask)
        per_row, row_mask = self.crf.loss(logits, mask, speakers)
        steps = jm.masks.lengths(mask)
        return jnp.sum(jnp.where(row_mask, per_row, 0)) / jnp.maximum(jnp.sum(steps), 1)

    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The most likely speakers, `[batch, time]`."""
        return self.crf(*self.scores(x, mask))


@nnx.jit
def train_step(model: Tagger, optimizer: nnx.Optimizer, batch: Conversations) -> jax.Array:
    loss, gradient = nnx.value_and_grad(lambda m: m.loss(batch.x, batch.mask, batch.speakers))(
        model
    )
    optimizer.update(model, gradient)
    return loss


@nnx.jit
def accuracies(model: Tagger, batch: Conversations) -> tuple[jax.Array, jax.Array]:
    """The accuracy over real steps: of the best path, and of the best label at each step."""
    logits, mask = model.scores(batch.x, batch.mask)
    path, _ = model.crf(logits, mask)
    right = [(ids == batch.speakers).astype(jnp.float32) for ids in (path, logits.argmax(-1))]
    return tuple(jm.metrics.Mean.empty().update(each, mask).compute() for each in right)


def check_padding(model: Tagger, batch: Conversations) -> None:
    """Test that padding changes neither the loss nor any gradient of it."""
    few = Conversations(*(jnp.asarray(a[:3, :40]) for a in batch))
    model = nnx.clone(model)
    model.eval()
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, inputs, mask):
        x, speakers = inputs
        return nnx.merge(graph, params, rest).loss(x, mask, speakers)

    mask = few.mask & (jnp.arange(40) < jnp.array([[40], [25], [9]]))
    jm.leak.assert_padding_invariant(loss, (few.x, few.speakers), mask, params=params)


# ------------------------------------------------------------------------------------ the run


def draw_picture(model: Tagger, batch: Conversations, losses: list[float], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    path_ids, mask = map(np.asarray, model(batch.x[:6], batch.mask[:6]))
    figure, (curve, said) = pyplot.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
    curve.semilogy(losses, color="#2a6f97", lw=0.8)
    curve.set(xlabel="step", ylabel="negative log-likelihood per step", title="Training")
    rows = np.stack([batch.speakers[:6], path_ids], axis=1).reshape(12, -1).astype(float)
    rows[~np.repeat(mask, 2, axis=0)] = np.nan
    said.imshow(rows, aspect="auto", cmap="tab10", interpolation="none", vmin=0, vmax=9)
    said.set_yticks(np.arange(0.5, 12, 2), [f"row {k}" for k in range(6)])
    said.set(xlabel="step", title="Who speaks (above) and what the model says (below)")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--hidden", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/tag_speakers"))
    parser.add_argument("--small", action="store_true", help="a few steps of a small model")
    options = parser.parse_args()
    if options.small:
        options.steps, options.hidden = 2, 8
    options.out.mkdir(parents=True, exist_ok=True)

    draw = np.random.default_rng(options.seed)
    training, testing = read_utterances("TRAIN"), read_utterances("TEST")
    model = Tagger(options.hidden, rngs=nnx.Rngs(options.seed))
    schedule = optax.cosine_decay_schedule(5e-3, options.steps)
    optimizer = nnx.Optimizer(model, optax.adam(schedule), wrt=nnx.Param)
    held_out = converse(*testing, 200, np.random.default_rng(2020))
    check_padding(model, held_out)
    print("The training loss and its gradients do not depend on padding: checked.")

    losses = [
        float(train_step(model, optimizer, converse(*training, BATCH, draw)))
        for _ in track(range(options.steps), description="Training")
    ]
    model.eval()
    by_path, by_step = map(float, accuracies(model, held_out))
    fill = float(held_out.mask.mean())
    print(f"Right at {by_path:.2%} of the real steps of 200 held-out conversations ({by_step:.2%}")
    print(f"without the random field), {fill:.0%} of the padded steps real.")
    metrics = {"accuracy": by_path, "accuracy_by_step": by_step, "steps": options.steps}
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    draw_picture(model, held_out, losses, options.out / "picture.png")
    print(f"Written to {options.out} (metrics.json, picture.png)")


if __name__ == "__main__":
    # What XLA compiles is kept there, so that the next start takes a fraction of the time.
    jax.config.update("jax_compilation_cache_dir", "runs/programs")
    main()
