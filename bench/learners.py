"""One model in four libraries, a bidirectional LSTM over ids, and its training step.

All start from the same weights, and take the same loss and the same optimizer. PyTorch has its own
of each; its packed rows are those of `pack_padded_sequence`.
"""

import os
from collections.abc import Callable
from typing import Any, Protocol

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
from flax import nnx

import jaxmask as jm
from bench.rivals.models import KB, Apply, Weights, built, matrices, named
from bench.tasks import Batch, Task

RATE, DECAY, CLIP, B2 = 3e-3, 1e-2, 1.0, 0.99


class Learner(Protocol):
    """Trains by a batch, in place, and returns the loss; whoever reads it waits for the step."""

    def step(self, batch: Batch) -> Any: ...


def initial_params(task: Task) -> Weights:
    return named(_jaxmask(task))[0]


# ------------------------------------------------------------------------- the models in JAX


def _jaxmask(task: Task) -> nnx.Module:
    rngs = nnx.Rngs(0)
    lstms = [
        jm.nn.Bidirectional(*(jm.nn.LSTM(width, task.hidden, rngs=rngs) for _ in range(2)))
        for width in task.widths
    ]
    embed = jm.nn.Embed(task.vocabulary, task.embed, rngs=rngs)
    return jm.nn.Sequential(embed, *lstms, nnx.Linear(2 * task.hidden, task.outputs, rngs=rngs))


def jaxmask_model(task: Task) -> Apply:
    _, of = named(_jaxmask(task))
    return lambda params, ids, mask: of(params)(ids, mask)[0]


def flax_model(task: Task) -> Apply:
    """The same of Flax's own layers, with lengths for a mask."""
    rngs = nnx.Rngs(0)

    def rnn(width: int) -> nnx.RNN:
        return nnx.RNN(nnx.OptimizedLSTMCell(width, task.hidden, rngs=rngs))

    embed = nnx.Embed(task.vocabulary, task.embed, rngs=rngs)
    both = (nnx.Bidirectional(rnn(width), rnn(width)) for width in task.widths)
    last = nnx.Linear(2 * task.hidden, task.outputs, rngs=rngs)
    _, of = named(nnx.Sequential(embed, *both, last), list(initial_params(task)))

    def apply(params: Weights, ids: jax.Array, mask: Any) -> jax.Array:
        embed, *both, last = of(params).layers
        x = embed(ids)
        for layer in both:
            x = layer(x, seq_lengths=mask.sum(1))
        return last(x)

    return apply


def keras_model(task: Task) -> Apply:
    """The same of Keras's layers, with the mask handed to each."""
    layers = keras.layers
    embed = built(layers.Embedding(task.vocabulary, task.embed), (None, None))
    lstms = [layers.LSTM(task.hidden, return_sequences=True) for _ in task.widths]
    both = [
        built(layers.Bidirectional(lstm), (None, None, width))
        for lstm, width in zip(lstms, task.widths, strict=True)
    ]
    last = built(layers.Dense(task.outputs), (None, None, 2 * task.hidden))

    def apply(params: Weights, ids: jax.Array, mask: Any) -> jax.Array:
        x = embed([params["layers.0.embedding"]], ids)
        for k, layer in enumerate(both, 1):
            x = layer(matrices(params, k), x, mask=mask)
        return last([params[f"layers.{len(both) + 1}.{end}"] for end in KB], x)

    return apply


MODELS = {"jaxmask": jaxmask_model, "flax": flax_model, "keras": keras_model}


# ---------------------------------------------------------------------------- training in JAX


def loss_of(task: Task, apply: Apply) -> Callable[[Weights, Batch], jax.Array]:
    def loss(params: Weights, batch: Batch) -> jax.Array:
        mask = batch.mask
        if batch.segments is not None:
            # The static number only sizes what is pooled, and nothing is.
            mask = jm.Segments(batch.segments, max_segments=batch.ids.shape[1])
        y = apply(params, batch.ids, mask)
        if task.labels is None:
            cross_entropy = jm.losses.softmax_cross_entropy_with_integer_labels
            return jm.losses.reduce(*cross_entropy(y, batch.mask, batch.targets))
        if batch.positions is not None:
            y, mask = y.reshape(-1, y.shape[-1])[batch.positions], batch.position_mask
        logits = y.reshape(len(y), task.frames * y.shape[1], -1)
        frames = jnp.repeat(mask, task.frames, axis=1)
        per_row = jm.losses.ctc_loss(logits, frames, batch.targets, batch.target_mask)
        return jm.losses.reduce(*per_row, by="row")

    return loss


class JAXLearner:
    """Trains a model of JAX; `step.lower` compiles ahead."""

    def __init__(self, task: Task, library: str, params: Weights):
        loss = loss_of(task, MODELS[library](task))
        rule = optax.chain(
            optax.clip_by_global_norm(CLIP),
            optax.adamw(RATE, b2=B2, weight_decay=DECAY),
        )

        @jax.jit
        def step(params: Weights, state: optax.OptState, batch: Batch) -> tuple:
            value, slope = jax.value_and_grad(loss)(params, batch)
            updates, state = rule.update(slope, state, params)
            return optax.apply_updates(params, updates), state, value

        self._step, self._params, self._state = step, params, rule.init(params)

    def step(self, batch: Batch) -> jax.Array:
        self._params, self._state, value = self._step(self._params, self._state, batch)
        return value


# ------------------------------------------------------------------------------------- PyTorch


class TorchLearner:
    """The same model of PyTorch's, over packed rows."""

    def __init__(self, task: Task, params: Weights):
        import torch

        torch.set_num_threads(os.cpu_count() or 1)
        given = {name: torch.tensor(np.asarray(value)) for name, value in params.items()}
        kernel, bias = (given[f"layers.{task.layers + 1}.{end}"] for end in KB)
        self._torch, self._task = torch, task
        self._embed = torch.nn.Embedding.from_pretrained(given["layers.0.embedding"], freeze=False)
        self._lstm = torch.nn.LSTM(
            task.embed, task.hidden, task.layers, batch_first=True, bidirectional=True
        )
        for k in range(task.layers):
            own = matrices(given, k + 1)
            for end, (w_x, w_h, b) in (("", own[:3]), ("_reverse", own[3:])):
                self._set(f"weight_ih_l{k}{end}", w_x.T)
                self._set(f"weight_hh_l{k}{end}", w_h.T)
                self._set(f"bias_ih_l{k}{end}", b)
                self._set(f"bias_hh_l{k}{end}", torch.zeros_like(b)).requires_grad_(False)
        self._last = torch.nn.Linear(2 * task.hidden, task.outputs)
        self._last.weight.data.copy_(kernel.T)
        self._last.bias.data.copy_(bias)
        modules = (self._embed, self._lstm, self._last)
        self._params = [p for module in modules for p in module.parameters() if p.requires_grad]
        self._rule = torch.optim.AdamW(self._params, lr=RATE, betas=(0.9, B2), weight_decay=DECAY)

    def _set(self, name: str, value: Any) -> Any:
        parameter = getattr(self._lstm, name)
        parameter.data.copy_(value)
        return parameter

    def step(self, batch: Batch) -> float:
        loss = self._loss(batch)
        self._rule.zero_grad()
        loss.backward()
        self._torch.nn.utils.clip_grad_norm_(self._params, CLIP)
        self._rule.step()
        return loss.item()

    def _loss(self, batch: Batch) -> Any:
        torch, rnn = self._torch, self._torch.nn.utils.rnn
        # PyTorch packs no row without a step: those that only fill up the batch are last.
        real = int(batch.mask.any(1).sum())
        ids, targets = torch.tensor(batch.ids[:real]), torch.tensor(batch.targets[:real]).long()
        lengths = torch.tensor(batch.mask[:real].sum(1))
        options = {"batch_first": True, "enforce_sorted": False}
        packed = rnn.pack_padded_sequence(self._embed(ids), lengths, **options)
        if self._task.labels is None:
            tags = rnn.pack_padded_sequence(targets, lengths, **options).data
            return torch.nn.functional.cross_entropy(self._last(self._lstm(packed)[0].data), tags)
        y = self._last(rnn.pad_packed_sequence(self._lstm(packed)[0], batch_first=True)[0])
        frames = y.reshape(real, self._task.frames * y.shape[1], -1)
        return torch.nn.functional.ctc_loss(
            frames.log_softmax(-1).transpose(0, 1),
            targets,
            self._task.frames * lengths,
            torch.tensor(batch.target_mask[:real].sum(1)),
            reduction="none",
        ).mean()


def learner(task: Task, library: str, params: Weights) -> Learner:
    if library == "torch":
        return TorchLearner(task, params)
    return JAXLearner(task, library, params)
