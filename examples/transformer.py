"""An encoder-decoder transformer from letters to phonemes, ragged on both sides.

    python -m pip install -e ".[examples]" && python examples/transformer.py
    python examples/transformer.py --small

Words of 1 to 28 letters go in, pronunciations of the CMU Pronouncing Dictionary come out, decoded
one phoneme at a time with a cache. The encoder gets the letters' mask, the decoder its own and the
letters'; the loss counts real phonemes. Several devices shard each batch and, with `--spread`, the
parameters. `examples/pronounce.py` solves the same task with a BiLSTM.
"""

import argparse
import functools
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from _pronounce import devices
from _pronounce.data import (
    LETTERS,
    PHONEMES,
    Batch,
    Batches,
    Entries,
    read_dictionary,
    spell_phonemes,
    split,
)
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from rich.progress import track

import jaxmask as jm

# Phonemes are 1 to 39, as in the data; a pronunciation begins and ends with 0.
EDGE = 0
TOKENS = 1 + len(PHONEMES)
LONGEST = 40


class Transformer(nnx.Module):
    """Letters and a mask to phonemes and a mask."""

    def __init__(self, features: int, layers: int, heads: int, *, rngs: nnx.Rngs):
        self.encoder = jm.nn.Sequential(
            jm.nn.Embed(len(LETTERS), features, rngs=rngs),
            jm.nn.SinusoidalPositions(features),
            *(jm.nn.TransformerEncoderBlock(heads, features, rngs=rngs) for _ in range(layers)),
            nnx.LayerNorm(features, rngs=rngs),
        )
        self.read = jm.nn.Sequential(
            jm.nn.Embed(TOKENS, features, rngs=rngs), jm.nn.SinusoidalPositions(features)
        )
        self.decoder = nnx.List(
            jm.nn.TransformerDecoderBlock(heads, features, max_length=LONGEST, rngs=rngs)
            for _ in range(layers)
        )
        self.write = jm.nn.Sequential(
            nnx.LayerNorm(features, rngs=rngs), nnx.Linear(features, TOKENS, rngs=rngs)
        )

    def __call__(self, letters, letter_mask, phonemes, phoneme_mask):
        """Logits of each next phoneme, for training, where the whole pronunciation is known."""
        memory, memory_mask = self.encoder(letters, letter_mask)
        y, mask = self.read(phonemes, phoneme_mask)
        for block in self.decoder:
            y, mask = block(y, mask, memory, memory_mask)
        return self.write(y, mask)

    def say(self, letters, letter_mask):
        """Decode greedily, phoneme by phoneme, with a cache in each layer."""
        memory, memory_mask = self.encoder(letters, letter_mask)
        batch = len(letters)
        caches = [block.initial_carry(batch) for block in self.decoder]
        carry = self.read.initial_carry(batch), caches, memory, memory_mask

        def step(carry, ids):
            position, caches, memory, memory_mask = carry
            one = jnp.ones((len(ids), 1), bool)
            position, (y, mask) = self.read.run(position, ids[:, None], one)
            updated = []
            for block, cache in zip(self.decoder, caches, strict=True):
                cache, (y, mask) = block.run(cache, y, mask, memory, memory_mask)
                updated.append(cache)
            logits, mask = self.write(y, mask)
            return (position, updated, memory, memory_mask), (logits[:, 0], mask[:, 0])

        start, rows = jnp.full(batch, EDGE), jm.masks.rows(letter_mask)
        return jm.decoding.greedy(step, carry, start, rows, max_length=LONGEST, end_id=EDGE)


def teacher(phonemes: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The inputs and targets of the decoder, and which steps of both are real.

    A row of n phonemes has n + 1 steps: the first input is `EDGE`, and so is the last target.
    """
    begin = jnp.full((len(phonemes), 1), EDGE)
    has_word = mask.any(axis=1, keepdims=True)  # a padding row has no steps
    reads = jnp.concatenate([begin, jnp.where(mask, phonemes, EDGE)], axis=1)
    writes = jnp.concatenate([jnp.where(mask, phonemes, EDGE), begin], axis=1)
    return reads, writes, jnp.concatenate([has_word, mask], axis=1)


def loss_of(model, letters, letter_mask, phonemes, phoneme_mask, axes=()) -> jax.Array:
    """The mean over real phonemes of all devices along the mesh axes `axes`."""
    reads, writes, mask = teacher(phonemes, phoneme_mask)
    logits, mask = model(letters, letter_mask, reads, mask)
    losses = jm.losses.seq2seq_cross_entropy(logits, mask, writes, label_smoothing=0.05)
    total, count = jax.lax.psum(jm.losses.sum_and_count(*losses), axes)
    return total / jnp.maximum(count, 1)


@functools.partial(nnx.jit, static_argnames=("mesh", "spread"))
def train_step(
    model: Transformer, optimizer: nnx.Optimizer, batch: Batch, mesh: Mesh, spread: bool = False
) -> jax.Array:
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def of_shard(batch, params):
        return loss_of(nnx.merge(graph, params, rest), *batch[:4], axes=devices.ROWS)

    of_all = devices.on_each_device(of_shard, mesh, out=PartitionSpec(), spread=spread)
    loss, gradient = jax.value_and_grad(of_all, argnums=1)(batch, params)
    optimizer.update(model, gradient)
    return loss


def check_padding(model: Transformer, batch: Batch) -> None:
    """Test that padding, of letters or of phonemes, changes neither the loss nor its gradients."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    letters, letter_mask, phonemes, phoneme_mask = (jnp.asarray(a[:2]) for a in batch[:4])

    def of_letters(params, x, mask):
        return loss_of(nnx.merge(graph, params, rest), x, mask, phonemes, phoneme_mask)

    def of_phonemes(params, x, mask):
        return loss_of(nnx.merge(graph, params, rest), letters, letter_mask, x, mask)

    jm.leak.assert_padding_invariant(of_letters, letters, letter_mask, params=params)
    jm.leak.assert_padding_invariant(of_phonemes, phonemes, phoneme_mask, params=params)


def error_rate(model: Transformer, batches: Batches) -> tuple[float, list[tuple[int, str]]]:
    """Phoneme error rate against the dictionary, and sample pronunciations."""
    graph, state = nnx.split(model)
    say = jax.jit(lambda state, x, mask: nnx.merge(graph, state).say(x, mask))
    metric, examples = jm.metrics.TokenErrorRate.empty(), []
    for batch in batches.epoch(0):
        said, said_mask = say(state, batch.letters, batch.mask)
        metric = metric.update(said, said_mask, batch.phonemes, batch.phoneme_mask)
        row = said[0][said_mask[0]].tolist()
        examples.append((int(batch.indices[0]), " ".join(spell_phonemes(row))))
    return float(metric.compute()), examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--features", type=int, default=96)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--words", type=int, help="train on fewer words, for a quick look")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/transformer"))
    spread = "shard the parameters over devices instead of replicating them"
    parser.add_argument("--spread", action="store_true", help=spread)
    parser.add_argument("--small", action="store_true", help="a few steps of a small model")
    options = parser.parse_args()
    if options.small:
        options.steps, options.features, options.layers, options.words = 2, 8, 1, 300
    options.out.mkdir(parents=True, exist_ok=True)

    parts = split(read_dictionary(), options.words)
    training = Batches(
        Entries.of(parts.training).that_fit(), 64, max_shapes=3, shuffle_seed=options.seed
    )
    tested = Entries.of(parts.development).that_fit()
    model = Transformer(options.features, options.layers, heads=4, rngs=nnx.Rngs(options.seed))
    rate = optax.warmup_cosine_decay_schedule(0, 3e-3, options.steps // 10, options.steps)
    optimizer = nnx.Optimizer(
        model, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)), wrt=nnx.Param
    )
    check_padding(model, next(training.epoch(0)))
    print("The training loss and its gradients do not depend on padding: checked.")

    mesh = devices.all_devices()
    state = nnx.state((model, optimizer))
    nnx.update((model, optimizer), devices.lay_out(state, mesh, spread=options.spread))
    steps = itertools.islice(training.from_step(0), options.steps)
    for batch in track(steps, total=options.steps, description="Training"):
        loss = train_step(model, optimizer, devices.shard_rows(batch, mesh), mesh, options.spread)
    model.eval()
    rate_of_errors, examples = error_rate(model, Batches(tested, 200, max_shapes=3))
    print(f"Loss {float(loss):.3f}; phoneme error rate {rate_of_errors:.1%} of held-out words")
    for index, said in examples[:8]:
        print(f"  {tested.words[index]:<14} {said}")
    metrics = {"phoneme_error_rate": rate_of_errors, "steps": options.steps}
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"Written to {options.out} (metrics.json)")


if __name__ == "__main__":
    # What XLA compiles is kept there, so that the next start takes a fraction of the time.
    jax.config.update("jax_compilation_cache_dir", "runs/programs")
    main()
