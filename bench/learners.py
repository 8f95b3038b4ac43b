"""One model in four libraries, a bidirectional LSTM over ids, and its training step.

All start from the same weights, and take the same loss and the same optimizer. PyTorch has its own
of each; its packed rows are those of `pack_padded_sequence`.
"""

import itertools
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
from bench.tasks import Batch, Task

RATE, DECAY, CLIP, B2 = 3e-3, 1e-2, 1.0, 0.99

# Embedding; of each layer and direction w_x, w_h, b; kernel and bias of the last layer.
Params = list[jax.Array]
# `(params, ids, mask or Segments) -> y`, [rows, time] to [rows, time, outputs].
Apply = Callable[[Params, jax.Array, Any], jax.Array]


class Learner(Protocol):
    """Trains by a batch, in place, and returns the loss; whoever reads it waits for the step."""

    def step(self, batch: Batch) -> Any: ...


def initial_params(task: Task) -> Params:
    return [variable[...] for variable in _variables(_jaxmask(task))]


# ------------------------------------------------------------------------- the models in JAX


def _jaxmask(task: Task) -> jm.nn.Sequential:
    rngs = nnx.Rngs(0)
    lstms = [
        jm.nn.Bidirectional(*(jm.nn.LSTM(width, task.hidden, rngs=rngs) for _ in range(2)))
        for width in task.widths
    ]
    embed = jm.nn.Embed(task.vocabulary, task.embed, rngs=rngs)
    return jm.nn.Sequential(embed, *lstms, nnx.Linear(2 * task.hidden, task.outputs, rngs=rngs))


def _variables(model: jm.nn.Sequential) -> list[nnx.Param]:
    """In the order of `Params`."""
    embed, *both, last = model.layers
    lstms = [lstm for layer in both for lstm in (layer.forward, layer.backward)]
    matrices = [variable for lstm in lstms for variable in (lstm.w_x, lstm.w_h, lstm.b)]
    return [embed.embedding, *matrices, last.kernel, last.bias]


def jaxmask_model(task: Task) -> Apply:
    return _of_module(_jaxmask(task), _variables, lambda model, ids, mask: model(ids, mask)[0])


class FlaxTagger(nnx.Module):
    """The same of Flax's own layers, with lengths for a mask."""

    def __init__(self, task: Task, rngs: nnx.Rngs):
        self.embed = nnx.Embed(task.vocabulary, task.embed, rngs=rngs)
        self.layers = nnx.List(
            nnx.Bidirectional(*(self._rnn(width, task.hidden, rngs) for _ in range(2)))
            for width in task.widths
        )
        self.last = nnx.Linear(2 * task.hidden, task.outputs, rngs=rngs)

    @staticmethod
    def _rnn(width: int, hidden: int, rngs: nnx.Rngs) -> nnx.RNN:
        return nnx.RNN(nnx.OptimizedLSTMCell(width, hidden, rngs=rngs))

    def variables(self) -> list[nnx.Param]:
        rnns = [rnn for layer in self.layers for rnn in (layer.forward_rnn, layer.backward_rnn)]
        matrices = [
            variable
            for cell in (rnn.cell for rnn in rnns)
            for variable in (cell.dense_i.kernel, cell.dense_h.kernel, cell.dense_h.bias)
        ]
        return [self.embed.embedding, *matrices, self.last.kernel, self.last.bias]

    def __call__(self, ids: jax.Array, lengths: jax.Array) -> jax.Array:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, seq_lengths=lengths)
        return self.last(x)


def flax_model(task: Task) -> Apply:
    return _of_module(
        FlaxTagger(task, nnx.Rngs(0)),
        FlaxTagger.variables,
        lambda model, ids, mask: model(ids, mask.sum(1)),
    )


def _of_module(module: Any, variables: Callable, call: Callable) -> Apply:
    graph, state = nnx.split(module)

    def apply(params: Params, ids: jax.Array, mask: Any) -> jax.Array:
        model = nnx.merge(graph, state, copy=True)
        for variable, value in zip(variables(model), params, strict=True):
            variable[...] = value
        return call(model, ids, mask)

    return apply


def keras_model(task: Task) -> Apply:
    """The same of Keras's layers, with the mask handed to each."""
    layers = keras.layers
    embed = layers.Embedding(task.vocabulary, task.embed)
    both = [
        layers.Bidirectional(layers.LSTM(task.hidden, return_sequences=True)) for _ in task.widths
    ]
    last = layers.Dense(task.outputs)
    embed.build((None, None))
    for layer, width in zip(both, task.widths, strict=True):
        layer.build((None, None, width))
    last.build((None, None, 2 * task.hidden))
    rest = [[v.value for v in layer.non_trainable_variables] for layer in both]

    def apply(params: Params, ids: jax.Array, mask: Any) -> jax.Array:
        own = iter(params)
        x = embed.stateless_call([next(own)], [], ids)[0]
        for layer, others in zip(both, rest, strict=True):
            x = layer.stateless_call(list(itertools.islice(own, 6)), others, x, mask=mask)[0]
        return last.stateless_call(list(own), [], x)[0]

    return apply


MODELS = {"jaxmask": jaxmask_model, "flax": flax_model, "keras": keras_model}


# ---------------------------------------------------------------------------- training in JAX


def loss_of(task: Task, apply: Apply) -> Callable[[Params, Batch], jax.Array]:
    def loss(params: Params, batch: Batch) -> jax.Array:
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

    def __init__(self, task: Task, library: str, params: Params):
        loss = loss_of(task, MODELS[library](task))
        rule = optax.chain(
            optax.clip_by_global_norm(CLIP),
            optax.adamw(RATE, b2=B2, weight_decay=DECAY),
        )

        @jax.jit
        def step(params: Params, state: optax.OptState, batch: Batch) -> tuple:
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

    def __init__(self, task: Task, params: Params):
        import torch

        torch.set_num_threads(os.cpu_count() or 1)
        embed, *matrices, kernel, bias = (torch.tensor(np.asarray(p)) for p in params)
        self._torch, self._task = torch, task
        self._embed = torch.nn.Embedding.from_pretrained(embed, freeze=False)
        self._lstm = torch.nn.LSTM(
            task.embed, task.hidden, task.layers, batch_first=True, bidirectional=True
        )
        ends = [f"_l{k}{end}" for k in range(task.layers) for end in ("", "_reverse")]
        for k, end in enumerate(ends):
            w_x, w_h, b = matrices[3 * k : 3 * k + 3]
            self._set("weight_ih" + end, w_x.T)
            self._set("weight_hh" + end, w_h.T)
            self._set("bias_ih" + end, b)
            self._set("bias_hh" + end, torch.zeros_like(b)).requires_grad_(False)
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


def learner(task: Task, library: str, params: Params) -> Learner:
    if library == "torch":
        return TorchLearner(task, params)
    return JAXLearner(task, library, params)
