"""One model in four libraries, a bidirectional LSTM over ids, and its training step.

All start from the same weights, and take the same loss and the same optimizer. PyTorch has its own
of each; its packed rows are those of `pack_padded_sequence`.
"""

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxmask as jm
from bench.rivals.models import (
    KB,
    Apply,
    Weights,
    bilstm,
    built,
    flax_bilstm,
    keras_bilstms,
    matrices,
    named,
)
from bench.tasks import Batch, Task

RATE, DECAY, CLIP, B2 = 3e-3, 1e-2, 1.0, 0.99

Step = Callable[[Batch], Any]  # trains by a batch, in place; whoever reads the loss waits for it


def _layers(task: Task, embed: Any, both: Callable[..., Any]) -> list:
    rngs = nnx.Rngs(0)
    first = embed(task.vocabulary, task.embed, rngs=rngs)
    last = nnx.Linear(2 * task.hidden, task.outputs, rngs=rngs)
    return [first, *(both(width, task.hidden, rngs) for width in task.widths), last]


def _jaxmask(task: Task) -> nnx.Module:
    return jm.nn.Sequential(*_layers(task, jm.nn.Embed, bilstm))


def initial_params(task: Task) -> Weights:
    return named(_jaxmask(task))[0]


def jaxmask_model(task: Task) -> Apply:
    _, of = named(_jaxmask(task))
    return lambda params, ids, mask: of(params)(ids, mask)[0]


def flax_model(task: Task) -> Apply:
    """The same of Flax's own layers, with lengths for a mask."""
    layers = _layers(task, nnx.Embed, flax_bilstm)
    _, of = named(nnx.Sequential(*layers), list(initial_params(task)))

    def apply(params: Weights, ids: jax.Array, mask: Any) -> jax.Array:
        embed, *both, last = of(params).layers
        x = embed(ids)
        for layer in both:
            x = layer(x, seq_lengths=mask.sum(1))
        return last(x)

    return apply


def keras_model(task: Task) -> Apply:
    """The same of Keras's layers, with the mask handed to each."""
    from keras import layers

    embed = built(layers.Embedding(task.vocabulary, task.embed), (None, None))
    rest = keras_bilstms(task.widths, task.hidden, task.outputs, first=1)

    def apply(params: Weights, ids: jax.Array, mask: Any) -> jax.Array:
        return rest(params, embed([params["layers.0.embedding"]], ids), mask)

    return apply


MODELS = {"jaxmask": jaxmask_model, "flax": flax_model, "keras": keras_model}


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


def in_jax(task: Task, library: str, params: Weights) -> Step:
    loss = loss_of(task, MODELS[library](task))
    adam = optax.adamw(RATE, b2=B2, weight_decay=DECAY)
    rule = optax.chain(optax.clip_by_global_norm(CLIP), adam)

    @jax.jit
    def update(params: Weights, state: optax.OptState, batch: Batch) -> tuple:
        value, slope = jax.value_and_grad(loss)(params, batch)
        updates, state = rule.update(slope, state, params)
        return optax.apply_updates(params, updates), state, value

    kept = [params, rule.init(params)]

    def step(batch: Batch) -> jax.Array:
        *kept[:], value = update(*kept, batch)
        return value

    return step


def in_torch(task: Task, params: Weights) -> Step:
    """The same model of PyTorch's, over packed rows."""
    import torch
    from torch.nn.utils import rnn

    from bench.rivals import pytorch

    torch.set_num_threads(os.cpu_count() or 1)
    given = {name: torch.tensor(np.asarray(value)) for name, value in params.items()}
    embed = torch.nn.Embedding.from_pretrained(given["layers.0.embedding"], freeze=False)
    sizes, options = (task.embed, task.hidden, task.layers), {"batch_first": True}
    lstm = torch.nn.LSTM(*sizes, **options, bidirectional=True)
    last = torch.nn.Linear(2 * task.hidden, task.outputs)
    kernel, bias = (given[f"layers.{task.layers + 1}.{end}"] for end in KB)
    last.load_state_dict({"weight": kernel.T, "bias": bias})
    own = [matrices(given, 1 + k) for k in range(task.layers)]
    pytorch.fill(lstm, [[one[:3], one[3:]] for one in own])
    named_parameters = [item for one in (embed, lstm, last) for item in one.named_parameters()]
    trained = [p for name, p in named_parameters if not name.startswith("bias_hh")]
    rule = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, B2), weight_decay=DECAY)

    def loss_of(batch: Batch) -> Any:
        # PyTorch packs no row without a step: those that only fill up the batch are last.
        real = int(batch.mask.any(1).sum())
        ids, targets = torch.tensor(batch.ids[:real]), torch.tensor(batch.targets[:real]).long()
        lengths = torch.tensor(batch.mask[:real].sum(1))
        pack = {**options, "lengths": lengths, "enforce_sorted": False}
        y = lstm(rnn.pack_padded_sequence(embed(ids), **pack))[0]
        if task.labels is None:
            tags = rnn.pack_padded_sequence(targets, **pack).data
            return torch.nn.functional.cross_entropy(last(y.data), tags)
        y = last(rnn.pad_packed_sequence(y, **options)[0])
        frames = y.reshape(real, task.frames * y.shape[1], -1).log_softmax(-1).transpose(0, 1)
        counts = task.frames * lengths, torch.tensor(batch.target_mask[:real].sum(1))
        return torch.nn.functional.ctc_loss(frames, targets, *counts, reduction="none").mean()

    def step(batch: Batch) -> float:
        loss = loss_of(batch)
        rule.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        rule.step()
        return loss.item()

    return step


def learner(task: Task, library: str, params: Weights) -> Step:
    return in_torch(task, params) if library == "torch" else in_jax(task, library, params)
