"""A PyTorch tagger over packed sequences, moved to Flax with its weights, and trained on.

    python -m pip install torch && python examples/migrate_torch.py
    python examples/migrate_torch.py --small

To which kind of word does each letter of "nine hundred and four" belong? What `forward` does is
Python, which no converter reads; so the parts are converted, and joined in a line each. Packing,
sorting and unpacking go.
"""

import argparse

import jax.numpy as jnp
import numpy as np
import optax
import torch
from _numbers import LETTERS, LONGEST_NAME, TENS, draw_numbers, letters, spell
from flax import nnx
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import jaxmask as jm

KINDS = 5  # a space, a word below twenty, a ten, a scale, "and"


def tags(number: int) -> list[int]:
    """The kind of word of each letter."""
    kinds = {"hundred": 3, "thousand": 3, "and": 4} | dict.fromkeys(TENS, 2)
    words = spell(number).split()
    return [kind for word in words for kind in (*[kinds.get(word, 1)] * len(word), 0)][:-1]


class Tagger(torch.nn.Module):
    """The model as it was."""

    def __init__(self, features: int):
        super().__init__()
        self.embed = torch.nn.Embedding(1 + len(LETTERS), features, padding_idx=0)
        self.rnn = torch.nn.LSTM(features, features, bidirectional=True, batch_first=True)
        self.head = torch.nn.Linear(2 * features, KINDS)

    def forward(self, ids, lengths):
        x = self.embed(ids)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=ids.shape[1])
        return self.head(y)


def batch_of(numbers: list[int]):
    ids, mask = jm.pad_sequences(map(letters, numbers), maxlen=LONGEST_NAME)
    wanted, _ = jm.pad_sequences(map(tags, numbers), maxlen=LONGEST_NAME)
    return ids, mask, wanted


def train_theirs(model: Tagger, steps: int, draw: np.random.Generator) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        ids, mask, wanted = batch_of(draw_numbers(draw, 64))
        logits = model(torch.tensor(ids), torch.tensor(mask.sum(axis=1)))
        wanted = torch.where(torch.tensor(mask), torch.tensor(wanted), -100).long()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits.transpose(1, 2), wanted).backward()
        optimizer.step()


@nnx.jit
def train_step(model, optimizer, ids, mask, wanted):
    def loss_of(model):
        losses = jm.losses.softmax_cross_entropy_with_integer_labels(*model(ids, mask), wanted)
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
    theirs = Tagger(features)
    train_theirs(theirs, steps, draw)

    ours = jm.nn.Sequential(
        jm.interop.from_torch(theirs.embed),
        jm.interop.from_torch(theirs.rnn),
        jm.interop.from_torch(theirs.head),
    )
    ids, mask, _ = batch_of(draw_numbers(draw, 8))
    with torch.no_grad():
        logits = theirs(torch.tensor(ids), torch.tensor(mask.sum(axis=1))).numpy()
    apart = float(jnp.abs(ours(ids, mask)[0] - logits)[mask].max())
    print(f"At real letters the logits differ by {apart:.2g}")
    print(f"Behind the end PyTorch has {abs(logits[~mask]).max():.2g}: the bias of the head")
    assert apart < 1e-4

    ours.train()
    optimizer = nnx.Optimizer(ours, optax.adam(3e-3), wrt=nnx.Param)
    for _ in range(steps):
        value = train_step(ours, optimizer, *batch_of(draw_numbers(draw, 64)))
    print(f"Trained on: cross entropy {float(value):.3f}")
    back = jm.interop.to_torch(ours.layers[1])
    print(f"And back: {back}")


if __name__ == "__main__":
    main()
