"""What it costs to trace and compile a training step, in CPU seconds of the process.

    python -m bench compiling

One LSTM layer and a stack of three bidirectional ones by several methods and in Flax, an encoder of
two transformer blocks with and without `skip_padding`, and the first layer again from JAX's
persistent cache. CPU seconds, unlike seconds on the clock, do not count what else the machine does;
XLA compiles on all cores.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from rich.progress import track

import jaxmask as jm
from bench import store, tables
from jaxmask.recurrent import Choice


class Sizes(NamedTuple):
    """The shape of the input, and the features inside."""

    batch: int = 64
    time: int = 256
    features: int = 64
    hidden: int = 128


SIZES, KEY = Sizes(), ("model", "how")
METHODS: dict[str, str | Choice] = {"auto": "auto", "scan": "scan"}


def one_number_of_slots() -> Choice:
    """The tiled method with the middle number of those that `auto` would choose from."""
    slots = jm.recurrent.explain(SIZES.batch, SIZES.time, SIZES.hidden, method="tiled").slots
    return Choice("tiled", slots=(slots[len(slots) // 2],))


def layer(method: str | Choice, features: int = 0) -> nnx.Module:
    sizes = features or SIZES.features, SIZES.hidden
    return jm.nn.LSTM(*sizes, method=method, rngs=nnx.Rngs(0))


def stack(make: Callable[[int], Any], both: Callable[..., Any], join: Callable) -> Any:
    """Three bidirectional layers."""
    widths = SIZES.features, 2 * SIZES.hidden, 2 * SIZES.hidden
    return join(*(both(make(width), make(width)) for width in widths))


def flax_layer(features: int = 0) -> Any:
    cell = nnx.OptimizedLSTMCell(features or SIZES.features, SIZES.hidden, rngs=nnx.Rngs(0))
    return nnx.RNN(cell)


class FlaxStack(nnx.Module):
    """Layers of Flax in order, each with the lengths."""

    def __init__(self, *layers: Any):
        self.layers = nnx.List(layers)

    def __call__(self, x: jax.Array, *, seq_lengths: jax.Array) -> jax.Array:
        for inside in self.layers:
            x = inside(x, seq_lengths=seq_lengths)
        return x


def encoder() -> Any:
    sizes = 8, SIZES.features, 4 * SIZES.features
    return jm.nn.Sequential(
        *(jm.nn.TransformerEncoderBlock(*sizes, rngs=nnx.Rngs(i)) for i in range(2))
    )


def models() -> Iterator[tuple[str, str, Callable[[], Any], bool]]:
    """The model, how it is run, what makes it, and whether it is Flax's."""
    for name, method in (METHODS | {"one number of slots": one_number_of_slots()}).items():
        yield "LSTM", name, lambda m=method: layer(m), False
    yield "LSTM", "Flax", flax_layer, True
    for name, method in METHODS.items():
        yield (
            *("3 x BiLSTM", name),
            lambda m=method: stack(lambda n: layer(m, n), jm.nn.Bidirectional, jm.nn.Sequential),
            False,
        )
    yield "3 x BiLSTM", "Flax", lambda: stack(flax_layer, nnx.Bidirectional, FlaxStack), True
    yield "encoder", "as it is", encoder, False
    for count in (2, 3, 4):
        name = f"skip_padding, {count} lengths"
        yield "encoder", name, lambda n=count: jm.nn.SkipPadding(encoder(), lengths=n), False


def seconds(model: Any, is_flax: bool) -> float:
    """CPU seconds from the function to the program."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    x = jnp.zeros((SIZES.batch, SIZES.time, SIZES.features))
    mask = jnp.ones(x.shape[:2], bool)

    def loss(params: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
        inside: Any = nnx.merge(graph, params, rest, copy=True)
        y = inside(x, seq_lengths=mask.sum(1)) if is_flax else inside(x, mask)[0]
        return jnp.sum(y)

    jax.clear_caches()
    start = time.process_time()
    jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, x, mask).compile()
    return time.process_time() - start


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    seconds(layer("scan"), False)  # the first compilation of a process takes longer
    for model, how, make, is_flax in track(list(models()), "compiling"):
        yield {"model": model, "how": how, "seconds": round(seconds(make(), is_flax), 2)}
    yield {"model": "LSTM", "how": "auto, from the cache", "seconds": round(from_cache(), 2)}


def from_cache() -> float:
    with tempfile.TemporaryDirectory() as folder:
        before = jax.config.jax_compilation_cache_dir
        jax.config.update("jax_compilation_cache_dir", folder)
        try:
            seconds(layer("auto"), False)
            return seconds(layer("auto"), False)
        finally:
            jax.config.update("jax_compilation_cache_dir", before)


def table(found: dict[str, Any]) -> str:
    rows = found["rows"]
    base = {r["model"]: r["seconds"] for r in rows if r["how"] in ("Flax", "as it is")}
    machine = store.machine_name(found["machine"])
    return tables.markdown(
        f"CPU seconds to trace and compile a training step, on {machine}.",
        ["model", "how", "seconds", "over Flax, or over the encoder as it is"],
        (
            [r["model"], r["how"], f"{r['seconds']:.2f}", f"{r['seconds'] / base[r['model']]:.1f}"]
            for r in rows
        ),
    )
