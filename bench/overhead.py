"""What a mask costs: each masked function against the same JAX operation without a mask.

    python -m bench overhead

Masks are arguments of the jitted functions. With a mask that is all True both must agree, in value
and gradient, before anything is timed; then the masked function gets a mask with 36 % real steps.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxmask as jm
from bench import tables, timing
from bench.agreement import require_same, with_gradient
from bench.rivals.models import FlaxBlock, compared, named
from bench.workloads import log_normal

Size = tuple[int, int, int]  # batch, time, feature
SIZES = ((32, 96, 64), (64, 256, 128), (16, 1024, 256))
ROUNDS = 30
HEADS, CLASSES, FILL = 4, 32, 0.36


class Case(NamedTuple):
    """A masked function and its plain counterpart, of the arrays that `draw` makes."""

    masked: Callable[..., Any]
    plain: Callable[..., Any]
    draw: Callable[[np.random.Generator, Size], tuple]


def features(draw: np.random.Generator, size: Size) -> tuple:
    return (draw.normal(size=size).astype(np.float32),)


def heads(draw: np.random.Generator, size: Size) -> tuple:
    shape = *size[:2], HEADS, size[2] // HEADS
    return tuple(draw.normal(size=shape).astype(np.float32) for _ in range(3))


def logits_and_labels(draw: np.random.Generator, size: Size) -> tuple:
    logits = draw.normal(size=(*size[:2], CLASSES)).astype(np.float32)
    return logits, draw.integers(0, CLASSES, size[:2]).astype(np.int32)


def with_kernel(draw: np.random.Generator, size: Size) -> tuple:
    kernel = draw.normal(size=(3, size[2], size[2])).astype(np.float32) / size[2]
    return *features(draw, size), kernel


def plain_norm(axis: int) -> Callable[[jax.Array], jax.Array]:
    def norm(x: jax.Array) -> jax.Array:
        mean, variance = x.mean(axis, keepdims=True), x.var(axis, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-6)

    return norm


def plain_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )


def masked_loss(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    per_step = jm.losses.softmax_cross_entropy_with_integer_labels(logits, mask, labels)
    return jm.losses.reduce(*per_step)


def plain_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    return jm.attention.attend(q, mask, k, v, mask)[0]


def softmax(x: jax.Array) -> jax.Array:
    return jax.nn.softmax(x, 1)


OPERATIONS = {
    "pool.mean": Case(lambda x, m: jm.pool.mean(x, m)[0], lambda x: x.mean(1), features),
    "pool.max": Case(lambda x, m: jm.pool.max(x, m)[0], lambda x: x.max(1), features),
    "ops.softmax": Case(lambda x, m: jm.ops.softmax(x, m)[0], softmax, features),
    "norm.layer": Case(lambda x, m: jm.norm.layer(x, m)[0], plain_norm(-1), features),
    "norm.instance": Case(lambda x, m: jm.norm.instance(x, m)[0], plain_norm(1), features),
    "attention.attend": Case(attend, jax.nn.dot_product_attention, heads),
    "conv.conv1d": Case(lambda x, w, m: jm.conv.conv1d(x, m, w)[0], plain_conv, with_kernel),
    "losses, cross entropy": Case(masked_loss, plain_loss, logits_and_labels),
}


def encoder_steps(feature: int) -> tuple[Callable, Callable]:
    """A step of SGD on two blocks, `masked(x, mask)` and `plain(x)`."""
    rngs, sizes = nnx.Rngs(0), (HEADS, feature, 4 * feature)
    blocks = (jm.nn.TransformerEncoderBlock(*sizes, rngs=rngs) for _ in range(2))
    weights, masked = named(jm.nn.Sequential(*blocks))
    blocks = (FlaxBlock(*sizes, nnx.gelu, rngs=rngs) for _ in range(2))
    _, plain = named(nnx.Sequential(*blocks), list(weights))

    def masked_loss(weights: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
        y, mask = masked(weights)(x, mask)
        return jm.losses.reduce(*jm.losses.l2_loss(y, mask, x))

    def plain_loss(weights: Any, x: jax.Array) -> jax.Array:
        return optax.l2_loss(plain(weights)(x), x).mean()

    def step(loss: Callable) -> Callable:
        @jax.jit
        def run(weights: Any, *arguments: Any) -> tuple:
            value, slope = jax.value_and_grad(loss)(weights, *arguments)
            return value, jax.tree.map(lambda p, g: p - 1e-3 * g, weights, slope)

        return lambda *arguments: run(weights, *arguments)

    return step(masked_loss), step(plain_loss)


def row(name: str, kind: str, size: Size, pair: tuple, arrays: tuple, rounds: int) -> dict:
    """Time both, the masked one with a mask of `FILL`."""
    mask = jm.masks.from_lengths(jnp.asarray(log_normal(*size[:2], FILL)), size[1])
    masked, plain = pair
    times = timing.interleaved(
        {"masked": lambda: masked(*arrays, mask), "plain": lambda: plain(*arrays)}, rounds
    )
    found = {"name": name, "size": size, "kind": kind, "milliseconds": times}
    return {**found, "masked_over_plain": timing.ratio(times, "masked", "plain")}


def run_operation(name: str, size: Size, rounds: int) -> list[dict]:
    case, rows = OPERATIONS[name], []
    arrays = tuple(map(jnp.asarray, case.draw(np.random.default_rng(0), size)))
    floats = range(sum(jnp.issubdtype(a.dtype, jnp.floating) for a in arrays))
    pair, full = (case.masked, case.plain), jnp.ones(size[:2], bool)
    gradients = tuple(with_gradient(function, floats) for function in pair)
    for kind, functions in (("forward", pair), ("with gradients", gradients)):
        masked, plain = map(jax.jit, functions)
        require_same(masked(*arrays, full), plain(*arrays), f"{name}, {kind}")
        rows.append(row(name, kind, size, (masked, plain), arrays, rounds))
    return rows


def run_encoder(size: Size, rounds: int) -> dict:
    x = jnp.asarray(features(np.random.default_rng(0), size)[0])
    masked, plain = steps = encoder_steps(size[2])
    both = masked(x, jnp.ones(size[:2], bool)), plain(x)
    require_same(*((loss, compared(weights)) for loss, weights in both), "encoder")
    return row("encoder, two blocks", "training step", size, steps, (x,), max(rounds // 3, 3))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    every = [(name, size) for size in SIZES for name in OPERATIONS]
    rows = [row for one in every for row in run_operation(*one, options.rounds)]
    rows += [run_encoder(size, options.rounds) for size in SIZES]
    return {"fill": FILL, "rows": rows}


def table(found: dict[str, Any]) -> str:
    """Masked over plain, one line a function."""
    ratios: dict[tuple[str, str], list[str]] = {}
    for one in found["rows"]:
        ratio = f"{one['masked_over_plain']:.2f}"
        ratios.setdefault((one["name"], one["kind"]), []).append(ratio)
    sizes = dict.fromkeys("x".join(map(str, one["size"])) for one in found["rows"])
    machine = found["machine"]
    return tables.markdown(
        f"Time with a mask over time without, on {machine['processor']}, jax {machine['jax']}.",
        ["function", "what", *sizes],
        ([*key, *cells] for key, cells in ratios.items()),
    )
