"""Whole models over ragged rows, in jaxmask, Flax, Keras and PyTorch.

    python -m bench models
    python -m bench models --models encoder --fills .3 --rounds 9

Two blocks of a pre-norm transformer encoder, one block of a causal decoder, three convolutions, a
bidirectional LSTM tagger, and a cell of the user's own. jaxmask runs them as they are and under
`jm.skip_padding`, in groups and packed; the others with their own masks or lengths, and where a
layer takes none, padding is filled by hand. All have the same weights and input, noise in its
padding, and must agree at real steps, or in the loss and the gradients of the input and of every
weight, before they are timed. Masks are arguments: each program is compiled once for all shares of
real steps.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

import jaxmask as jm
from bench import chart, contest, problem, store, tables, timing, workloads
from bench.contest import Entrant
from bench.rivals import models as jax_models
from bench.rivals.models import MODELS, Sizes, compared
from bench.suite import Suite, some

SIZES, FILLS, PASSES = Sizes(), (0.1, 0.3, 0.6, 1.0), ("forward", "train")
OURS, SKIP, PACK = "jaxmask", "jaxmask, skip_padding", "jaxmask, skip_padding(pack)"
NAMES = (OURS, SKIP, PACK, "flax", "keras", "torch", "torch nested")
KEY = ("model", "what", "fill")
OPTIONS = {
    "--models": some(MODELS),
    "--what": some(PASSES),
    "--fills": some(FILLS, choices=None),
}


def data(sizes: Sizes, outputs: int) -> tuple[jax.Array, jax.Array]:
    """The input and the cotangent of the output."""
    draw = np.random.default_rng(0)
    shapes = ((sizes.batch, sizes.time, size) for size in (sizes.features, outputs))
    x, cotangent = (jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in shapes)
    return x, cotangent


def in_jax(apply: Callable, weights: Any, x: Any, cotangent: Any, what: str) -> Entrant:
    def forward(weights: Any, x: jax.Array, mask: jax.Array, cotangent: jax.Array) -> jax.Array:
        return apply(weights, x, mask)

    def train(weights: Any, x: jax.Array, mask: jax.Array, cotangent: jax.Array) -> Any:
        def loss(weights: Any, x: jax.Array) -> jax.Array:
            return problem.loss(apply(weights, x, mask), mask, cotangent)

        return jax.value_and_grad(loss, argnums=(0, 1))(weights, x)

    function = train if what == "train" else forward
    given = weights, x, jnp.ones(x.shape[:2], bool), cotangent
    program, cost = timing.compiled_cost(function, *given)

    def result(found: tuple) -> Any:
        mask, value = found
        if what == "forward":
            return value[mask]
        total, (slopes, dx) = value
        return total, compared(slopes), dx[mask]

    return Entrant(lambda mask: (mask, program(weights, x, mask, cotangent)), result, cost)


def in_torch(made: tuple, x: jax.Array, cotangent: jax.Array, what: str) -> Entrant:
    import torch

    module, forward, gradients = made
    x, cotangent = (torch.tensor(np.asarray(array)) for array in (x, cotangent))
    module.train(what == "train")
    x.requires_grad_(what == "train")

    def run(mask: jax.Array) -> tuple:
        real = torch.tensor(np.asarray(mask))
        if what == "forward":
            with torch.inference_mode():
                return real, forward(module, x, real)
        x.grad = None
        module.zero_grad()
        loss = torch.where(real[..., None], forward(module, x, real) * cotangent, 0.0).sum()
        loss.backward()
        return real, loss.detach()

    def result(found: tuple) -> Any:
        mask, value = found
        if what == "forward":
            return value[mask].numpy()
        return value.numpy(), compared(gradients()), x.grad[mask].numpy()

    return Entrant(run, result, {})


def entrants(name: str, what: str) -> tuple[dict[str, Entrant], dict[str, str]]:
    """Those that can take part, ours first, and why the others cannot."""
    sizes = SIZES
    weights, ours = jax_models.ours(name, sizes)
    outputs = sizes.outputs if name == "tagger" else sizes.features
    given = *data(sizes, outputs), what

    def plain(weights: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
        return ours(x, mask, weights)[0]

    def skipping(weights: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
        return jm.skip_padding(ours)(x, mask, weights)[0]

    def packing(weights: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
        # A loop over time wants all packed rows at once: a third of the batch for a third of steps.
        pack = -(-sizes.batch // 3) if name == "own cell" else True
        return jm.skip_padding(ours, pack=pack)(x, mask, weights)[0]

    def keras() -> Entrant:
        return in_jax(jax_models.keras(name, sizes), weights, *given)

    def torch(nested: bool = False) -> Entrant:
        from bench.rivals import models_torch

        module, forward, gradients = models_torch.model(name, sizes, weights)
        forward = models_torch.over_nested if nested else forward
        return in_torch((module, forward, gradients), *given)

    makers: dict[str, Callable[[], Entrant]] = {
        OURS: lambda: in_jax(plain, weights, *given),
        SKIP: lambda: in_jax(skipping, weights, *given),
        PACK: lambda: in_jax(packing, weights, *given),
        "flax": lambda: in_jax(jax_models.flax(name, sizes, weights), weights, *given),
        "keras": keras,
        "torch": torch,
    }
    if (name, what) == ("encoder", "forward"):
        makers["torch nested"] = lambda: torch(nested=True)
    return contest.enter(makers)


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    for name in options.models:
        for what in options.what:
            made, left_out = entrants(name, what)
            for fill in track(options.fills, f"{name}, {what}"):
                yield run(name, what, fill, made, options.rounds) | {"left_out": left_out}


def run(name: str, what: str, fill: float, made: dict[str, Entrant], rounds: int) -> store.Row:
    lengths = workloads.log_normal(SIZES.batch, SIZES.time, fill)
    mask = jnp.asarray(np.arange(SIZES.time) < lengths[:, None])
    found = contest.run(made, [mask], f"{name}, {what}, {fill}", rounds)
    return {
        "model": name,
        "what": what,
        "fill": fill,
        "sizes": SIZES,
        "real_steps": int(lengths.sum()),
        "rivals": found,
    }


def table(found: dict[str, Any]) -> str:
    """Milliseconds of each, forward / training."""
    rows = {tuple(row[name] for name in KEY): row["rivals"] for row in found["rows"]}
    names = [name for name in NAMES if any(name in rivals for rivals in rows.values())]
    problems = dict.fromkeys((model, fill) for model in MODELS for fill in FILLS)

    def cells(model: str, fill: float) -> list[str]:
        both = [rows.get((model, what, fill), {}) for what in PASSES]
        return [model, f"{fill:.0%}", *(tables.each(both, name) for name in names)]

    batch, time, features, *_ = SIZES
    return tables.markdown(
        f"Milliseconds, forward / training: batch {batch}, time {time}, {features} features, on "
        f"{found['machine']['processor']}, jax {found['machine']['jax']}.",
        ["model", "real steps", *names],
        [cells(*p) for p in problems if any((p[0], what, p[1]) in rows for what in PASSES)],
    )


def draw(found: dict[str, Any], path: Path) -> None:
    """One panel a model and pass: milliseconds against the share of steps that are real."""
    about = f"Milliseconds against the share of real steps\n{found['machine']['processor']}"
    figure, axes = chart.panels(len(PASSES), len(MODELS), about, size=(2.8, 2.4))
    for across, what in zip(axes, PASSES, strict=True):
        for panel, model in zip(across, MODELS, strict=True):
            rows = chart.chosen(found["rows"], model=model, what=what)
            rows.sort(key=lambda row: row["fill"])
            chart.lines(panel, rows, lambda row: row["fill"], lambda row, one: one["milliseconds"])
            panel.set_title(f"{model}, {what}", fontsize=9)
            panel.set(ylim=(0, None), xlim=(0, 1.05))
    chart.finish(figure, axes, path)


SUITES = {"models": Suite(KEY, measure, table, OPTIONS, 3, draw)}
