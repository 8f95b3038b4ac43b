"""The model: letters in, a score for each phoneme and for the blank out, two frames a letter."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

import jaxmask as jm
from _pronounce.data import BLANK, CLASSES, FRAMES_A_LETTER, LETTERS


@dataclass(frozen=True)
class Size:
    """How large the model is."""

    embed: int
    layers: int
    hidden: int
    dropout: float = 0.0


def pronouncer(size: Size, rngs: nnx.Rngs) -> jm.nn.Sequential:
    """Bidirectional LSTMs over the letters of each word, and two frames of scores a letter.

    Every layer takes `(x, mask)` and returns `(y, mask)`. Each word is read backward from its own
    last letter, not from the end of the rectangle. `Upsample` repeats the bits of the mask with the
    letters, so the loss counts the right frames. Flax's own `Linear` and `Dropout` join as they
    are.
    """
    layers = [jm.nn.Embed(len(LETTERS), size.embed, rngs=rngs)]
    features = size.embed
    for _ in range(size.layers):
        forward = jm.nn.LSTM(features, size.hidden, rngs=rngs)
        backward = jm.nn.LSTM(features, size.hidden, rngs=rngs)
        layers += [jm.nn.Bidirectional(forward, backward), nnx.Dropout(size.dropout)]
        features = 2 * size.hidden
    return jm.nn.Sequential(
        *layers,
        nnx.Linear(features, FRAMES_A_LETTER * CLASSES, rngs=rngs),
        jm.nn.Upsample(FRAMES_A_LETTER),
        own_share,
    )


def split(size: Size, seed: int) -> tuple[nnx.GraphDef, nnx.State]:
    """A new model as its structure and its parameters, which JAX's transformations can take."""
    graphdef = outline(size)[0]
    # One program for all initializers is compiled faster than each of them.
    return graphdef, jax.jit(lambda: nnx.split(pronouncer(size, nnx.Rngs(seed)))[1])()


def outline(size: Size) -> tuple[nnx.GraphDef, nnx.State]:
    """The same without any arithmetic, with shapes and dtypes as parameters."""
    return nnx.split(nnx.eval_shape(lambda: pronouncer(size, nnx.Rngs(0))))


def own_share(x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Give each frame of a letter its own share of the letter's features.

    Some letters are two phonemes (x is K S), and CTC hears at most one in a frame: both frames of a
    letter need scores of their own. A layer of one's own is a function of `(x, mask)`, no more.
    """
    batch, time, features = x.shape
    shares = x.reshape(batch, time, FRAMES_A_LETTER, features // FRAMES_A_LETTER)
    number = jnp.arange(time) % FRAMES_A_LETTER
    return jnp.take_along_axis(shares, number[None, :, None, None], axis=2)[:, :, 0], mask


def greedy(logits: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The best class of each frame, and a mask of the frames that say something new.

    CTC reads a row of classes by merging equal neighbours and dropping blanks. Nothing has to be
    moved for that: the frames that are merged or dropped are holes in the mask.
    """
    best = jnp.argmax(logits, axis=-1)
    before, _ = jm.ops.shift(best, mask, 1, value=BLANK)
    return best, mask & (best != BLANK) & (best != before)
