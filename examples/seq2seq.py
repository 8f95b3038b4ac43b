"""A recurrent encoder and decoder with attention: names of numbers in, digits out.

    python examples/seq2seq.py
    python examples/seq2seq.py --small

"nine hundred and four" becomes 9 0 4. Names have 3 to 60 letters and numbers 1 to 6 digits, so
both sides are ragged: the decoder gets its own mask and the encoder's. `examples/infer.py` answers
requests with the model that this script keeps.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from _numbers import LETTERS, LONGEST_NAME, MOST_DIGITS, draw_numbers, letters
from flax import nnx

import jaxmask as jm

BEGIN, END = 10, 11  # after the digits 0 to 9
TOKENS = 12


class Translator(nnx.Module):
    def __init__(self, features: int, *, rngs: nnx.Rngs):
        half = features // 2
        self.encoder = jm.nn.Sequential(
            jm.nn.Embed(1 + len(LETTERS), features, rngs=rngs),
            jm.nn.Bidirectional(
                jm.nn.GRU(features, half, rngs=rngs), jm.nn.GRU(features, half, rngs=rngs)
            ),
        )
        self.embed = jm.nn.Embed(TOKENS, features, rngs=rngs)
        self.decoder = jm.nn.GRU(features, features, rngs=rngs)
        self.attention = jm.nn.CrossAttention(1, features, rngs=rngs)
        self.out = nnx.Linear(2 * features, TOKENS, rngs=rngs)

    def decode(self, carry, given, given_mask, memory, memory_mask):
        """Go on from `carry` with these tokens, and look at the memory after each."""
        carry, (y, mask) = self.decoder.run(carry, *self.embed(given, given_mask))
        seen, _ = self.attention(y, mask, memory, memory_mask)
        return carry, (self.out(jnp.concatenate([y, seen], axis=-1)), mask)

    def __call__(self, names, name_mask, given, given_mask):
        """Logits of each next token, where the whole number is known."""
        memory = self.encoder(names, name_mask)
        start = self.decoder.initial_carry(len(names))
        return self.decode(start, given, given_mask, *memory)[1]

    def translate(self, names, name_mask):
        """The likeliest digits, one by one."""
        memory = self.encoder(names, name_mask)
        start = self.decoder.initial_carry(len(names)), *memory

        def step(carry, token):
            state, *memory = carry
            one = jnp.ones((len(token), 1), bool)
            state, (logits, _) = self.decode(state, token[:, None], one, *memory)
            return (state, *memory), logits[:, 0]

        begin, rows = jnp.full(len(names), BEGIN), jm.masks.rows(name_mask)
        limits = {"max_length": MOST_DIGITS + 1, "end_id": END}
        return jm.decoding.greedy(step, start, begin, rows, **limits)


def batch_of(numbers: list[int]):
    """Names, what the decoder is given, and what it should say; always of one shape."""
    digits = [[int(digit) for digit in str(number)] for number in numbers]
    names, name_mask = jm.pad_sequences(map(letters, numbers), maxlen=LONGEST_NAME)
    given, mask = jm.pad_sequences([[BEGIN, *d] for d in digits], maxlen=MOST_DIGITS + 1)
    wanted, _ = jm.pad_sequences([[*d, END] for d in digits], maxlen=MOST_DIGITS + 1)
    return names, name_mask, given, mask, wanted


@nnx.jit
def train_step(model, optimizer, names, name_mask, given, mask, wanted):
    def loss_of(model):
        logits, real = model(names, name_mask, given, mask)
        return jm.losses.reduce(*jm.losses.seq2seq_cross_entropy(logits, real, wanted))

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


def share_right(model, numbers: list[int]) -> float:
    """How many held-out numbers are right in every digit."""
    names, name_mask, *_ = batch_of(numbers)
    said, said_mask = nnx.jit(Translator.translate)(model, names, name_mask)
    rows = jm.unpad_sequences(np.asarray(said), np.asarray(said_mask))
    return float(
        np.mean(["".join(map(str, r)) == str(n) for r, n in zip(rows, numbers, strict=True)])
    )


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--small", action="store_true", help="a few steps of a small model")
    parser.add_argument("--out", type=Path, default=Path("runs/seq2seq"))
    options = parser.parse_args()
    if options.small:
        options.steps, options.features = 3, 8
    draw = np.random.default_rng(0)
    tested = draw_numbers(draw, 16 if options.small else 500)
    model = Translator(options.features, rngs=nnx.Rngs(0))
    rate = optax.cosine_decay_schedule(5e-3, options.steps)
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    optimizer = nnx.Optimizer(model, clipped, wrt=nnx.Param)
    for step in range(options.steps):
        numbers = [n for n in draw_numbers(draw, 64) if n not in tested]
        loss = train_step(model, optimizer, *batch_of([*numbers, *numbers][:64]))
        if step % 100 == 0:
            print(f"step {step}: {float(loss):.3f} nats a digit")
    right = share_right(model, tested)
    print(f"{right:.1%} of {len(tested)} held-out numbers are right in every digit")
    kept = (options.out / "model").absolute()
    with ocp.StandardCheckpointer() as keeper:
        keeper.save(kept, nnx.state(model), force=True)
    print(f"The model is kept in {kept.parent}")
    return right


if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", "runs/programs")
    main()
