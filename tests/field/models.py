"""Five models of sequences, written from scratch in the plain way that tutorials have them."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tests.field import IDS, Subject

TAGS = np.random.default_rng(2).integers(0, 3, (3, 6))
LABELS = np.array([0, 1, 1])


class Tagger(nnx.Module):
    """Embedding, bidirectional LSTM, a tag at each step; the loss is over real steps."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(9, 4, rngs=rngs)
        self.forward = nnx.RNN(nnx.LSTMCell(4, 4, rngs=rngs))
        self.backward = nnx.RNN(nnx.LSTMCell(4, 4, rngs=rngs))
        self.rnn = nnx.Bidirectional(self.forward, self.backward, rngs=rngs)
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, ids: Any, mask: Any) -> Any:
        h = self.rnn(self.embed(ids), seq_lengths=mask.sum(1))
        return self.out(h), mask


class Classifier(nnx.Module):
    """A transformer encoder with an attention mask, and the mean of its steps."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(9, 4, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(4, rngs=rngs) for _ in range(2)])
        self.wide, self.narrow = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, ids: Any, mask: Any) -> Any:
        x = self.embed(ids)
        x = x + self.attend(self.norms[0](x), mask=nnx.make_attention_mask(mask, mask))
        x = x + self.narrow(nnx.gelu(self.wide(self.norms[1](x))))
        return self.out(x.mean(axis=1))


class TextCNN(nnx.Module):
    """Convolutions of two widths, and the largest of each feature over time."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(9, 4, rngs=rngs)
        self.convs = nnx.List([nnx.Conv(4, 3, (width,), rngs=rngs) for width in (2, 3)])
        self.out = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, ids: Any, mask: Any) -> Any:
        x = self.embed(ids)
        x = jnp.concatenate([nnx.relu(conv(x)).max(axis=1) for conv in self.convs], axis=-1)
        return self.out(x)


class Translator(nnx.Module):
    """A GRU encoder, a GRU decoder, additive attention with -1e9 at padding."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(9, 4, rngs=rngs)
        self.encoder = nnx.RNN(nnx.GRUCell(4, 4, rngs=rngs))
        self.decoder = nnx.RNN(nnx.GRUCell(4, 4, rngs=rngs))
        self.query, self.key = nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)
        self.score, self.out = nnx.Linear(4, 1, rngs=rngs), nnx.Linear(8, 9, rngs=rngs)

    def __call__(self, ids: Any, mask: Any) -> Any:
        memory = self.encoder(self.embed(ids), seq_lengths=mask.sum(1))
        h = self.decoder(self.embed(TAGS[:, :4] + 1))
        both = jnp.tanh(self.query(h)[:, :, None] + self.key(memory)[:, None])
        scores = jnp.where(mask[:, None], self.score(both)[..., 0], -1e9)
        context = nnx.softmax(scores) @ memory
        return self.out(jnp.concatenate([h, context], -1))


class TCN(nnx.Module):
    """Two residual blocks of dilated causal convolutions, and the mean loss of real steps."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(9, 4, rngs=rngs)
        self.convs = nnx.List(
            [
                nnx.Conv(4, 4, (2,), kernel_dilation=(d,), padding="CAUSAL", rngs=rngs)
                for d in (1, 2)
            ]
        )
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, ids: Any, mask: Any) -> Any:
        x = self.embed(ids)
        for conv in self.convs:
            x = x + nnx.relu(conv(x))
        tags = jnp.zeros(mask.shape, int)
        losses = optax.softmax_cross_entropy_with_integer_labels(self.out(x), tags)
        return (losses * mask).sum() / mask.sum()


MODELS = {
    "BiLSTM tagger": Tagger,
    "transformer encoder classifier": Classifier,
    "CNN text classifier": TextCNN,
    "translator with attention": Translator,
    "temporal convolutions (TCN), with its loss": TCN,
}


def subjects() -> Iterator[Subject]:
    """All of them."""
    for name, model in MODELS.items():
        yield Subject(name, "models", lambda model=model: (model(nnx.Rngs(0)), IDS, None))
