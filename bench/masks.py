"""What a mask costs, and what it costs to keep packed sequences apart in a convolution.

    python -m bench overhead
    python -m bench gaps

`overhead`: each masked function against the same JAX operation without a mask. Masks are arguments
of the jitted functions. With a mask that is all True both must agree, in value and gradient, before
anything is timed; then the masked function gets a mask with 36 % real steps.

`gaps`: a window must not reach from one sequence of a packed row into the next. jaxmask moves the
sequences `dilation * (window - 1)` steps apart before a dense convolution, and back after it.
RETURNN packs them with such gaps, so that dense kernels run unchanged, and pays in every other
layer. A third method adds up one product for each step of the window, masked where it meets another
sequence. Real steps a millisecond of one layer, forward and with gradients, on the lengths of the
workload "wmt". Results at real steps must agree before anything is timed.
"""

import argparse
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxmask as jm
from bench import contest, store, tables, timing
from bench.contest import Entrant, with_gradient
from bench.problem import PASSES
from bench.rivals import models
from bench.suite import Suite, some
from bench.workloads import WORKLOADS, log_normal

SIZES = ((32, 96, 64), (64, 256, 128), (16, 1024, 256))  # batch, time, feature
HEADS, CLASSES, FILL = 4, 32, 0.36

layer_norm = functools.partial(jax.nn.standardize, epsilon=1e-6)
instance_norm = functools.partial(layer_norm, axis=1)


def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    layout = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=layout)


def attend(q: jax.Array, mask: jax.Array, k: jax.Array, v: jax.Array) -> tuple:
    return jm.attention.attend(q, mask, k, v, mask)


def cross_entropy(logits: jax.Array, mask: jax.Array | None = None) -> Any:
    """The mean over real steps, in a pair; without a mask over all, by optax."""
    labels = jnp.arange(logits[..., 0].size).reshape(logits.shape[:2]) % CLASSES
    if mask is None:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    loss = jm.losses.softmax_cross_entropy_with_integer_labels
    return jm.losses.reduce(*loss(logits, mask, labels)), None


def features(*size: int) -> list[tuple[int, ...]]:
    return [size]


# The masked function (a pair of its first argument and the mask), the plain one, and the shapes.
OPERATIONS: dict[str, tuple[Callable, Callable, Callable[..., list[tuple[int, ...]]]]] = {
    "pool.mean": (jm.pool.mean, lambda x: x.mean(1), features),
    "pool.max": (jm.pool.max, lambda x: x.max(1), features),
    "ops.softmax": (jm.ops.softmax, lambda x: jax.nn.softmax(x, 1), features),
    "norm.layer": (jm.norm.layer, layer_norm, features),
    "norm.instance": (jm.norm.instance, instance_norm, features),
    "attention.attend": (
        *(attend, jax.nn.dot_product_attention),
        lambda batch, time, size: [(batch, time, HEADS, size // HEADS)] * 3,
    ),
    "conv.conv1d": (jm.conv.conv1d, conv, lambda b, t, size: [(b, t, size), (3, size, size)]),
    "losses, cross entropy": (cross_entropy, cross_entropy, lambda b, t, _: [(b, t, CLASSES)]),
}
ENCODER = "encoder, two blocks"


def operation(name: str, size: tuple[int, ...]) -> Iterator[tuple[str, Callable, Callable, list]]:
    """Forward and with gradients: the masked function, the plain one, and the arrays."""
    function, plain, shapes = OPERATIONS[name]
    draw = np.random.default_rng(0)
    arrays = [jnp.asarray(draw.normal(size=shape), "f4") for shape in shapes(*size)]

    def masked(mask: jax.Array, x: jax.Array, *more: jax.Array) -> jax.Array:
        return function(x, mask, *more)[0]

    yield "forward", masked, plain, arrays
    at = range(len(arrays))
    gradients = with_gradient(masked, [1 + k for k in at]), with_gradient(plain, at)
    yield "with gradients", *gradients, arrays


def encoder(size: tuple[int, ...]) -> Iterator[tuple[str, Callable, Callable, list]]:
    """A loss of two blocks and its gradients in the weights."""
    sizes = models.Sizes(*size, heads=HEADS, mlp=4 * size[2])
    weights, ours = models.ours("encoder", sizes)
    _, theirs = models.named(models.FLAX["encoder"][0](sizes, nnx.Rngs(0)), list(weights))

    def masked(mask: jax.Array, weights: Any, x: jax.Array) -> jax.Array:
        y, mask = ours(x, mask, weights)
        return jm.losses.reduce(*jm.losses.l2_loss(y, mask, x))

    def plain(weights: Any, x: jax.Array) -> jax.Array:
        return optax.l2_loss(theirs(weights)(x), x).mean()

    def step(loss: Callable, weights_at: int) -> Callable:
        def run(*given: Any) -> Any:
            value, slope = jax.value_and_grad(loss, weights_at)(*given)
            return value, models.compared(slope)

        return run

    x = jnp.asarray(np.random.default_rng(0).normal(size=size), "f4")
    yield "training step", step(masked, 1), step(plain, 0), [weights, x]


def measure_overhead(options: argparse.Namespace) -> Iterator[store.Row]:
    for name in options.functions:
        for size in SIZES:
            mask = jm.masks.from_lengths(jnp.asarray(log_normal(*size[:2], FILL)), size[1])
            made = encoder(size) if name == ENCODER else operation(name, size)
            for kind, *both, arrays in made:
                masked, plain = map(jax.jit, both)
                full = masked(jnp.ones_like(mask), *arrays)
                contest.require_same(full, plain(*arrays), f"{name}, {kind}")
                runs = {"plain": functools.partial(plain, *arrays)}
                runs["masked"] = functools.partial(masked, mask, *arrays)
                times = timing.interleaved(runs, options.rounds)
                rivals = {who: {"milliseconds": spread} for who, spread in times.items()}
                yield {"name": name, "size": size, "kind": kind, "rivals": rivals}


def table_of_overhead(found: dict[str, Any]) -> str:
    """Masked over plain, one line a function."""
    ratios: dict[tuple[str, str], list[str]] = {}
    for one in found["rows"]:
        ratio = tables.over(one["rivals"], "masked", "plain")
        ratios.setdefault((one["name"], one["kind"]), []).append(ratio)
    sizes = dict.fromkeys("x".join(map(str, one["size"])) for one in found["rows"])
    about = f"Time with a mask over time without, on {found['on']}, jax {found['machine']['jax']}."
    lines = ([*key, *cells] for key, cells in ratios.items())
    return tables.markdown(about, ["function", "what", *sizes], lines)


# ----------------------------------------------------------------------------------------- gaps

TIME, FEATURES, WINDOW = 128, 128, 5
DILATIONS = (1, 4)


def moved_apart(x: jax.Array, mask: Any, kernel: jax.Array, dilation: int) -> jax.Array:
    return jm.conv.conv1d(x, mask, kernel, dilation=dilation)[0]


def by_steps(x: jax.Array, segments: jm.Segments, kernel: jax.Array, dilation: int) -> jax.Array:
    """One product for each step of the window."""
    x, ids, reach = jm.ops.fill(x, segments)[0], segments.ids, dilation * (WINDOW // 2)
    far_x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
    far_ids, y = jnp.pad(ids, ((0, 0), (reach, reach))), jnp.zeros_like(x)
    for k in range(WINDOW):
        here = slice(k * dilation, k * dilation + x.shape[1])
        same = (far_ids[:, here] == ids) & (ids > 0)
        y += jnp.where(same[..., None], far_x[:, here], 0) @ kernel[k]
    return y


METHODS = {  # the layer, and whether rows have gaps
    "moved apart (jaxmask)": (moved_apart, False),
    "masked": (by_steps, False),
    "packed with gaps": (moved_apart, True),
}


def entrant(name: str, dilation: int, what: str) -> Entrant:
    layer, wide = METHODS[name]
    gap, draw = dilation * (WINDOW - 1) if wide else 0, np.random.default_rng(0)
    rows = [draw.normal(size=(n, FEATURES)) for n in WORKLOADS["wmt"].lengths(128)]
    rows = [np.pad(row, ((0, gap), (0, 0)), constant_values=np.nan).astype("f4") for row in rows]
    packed = jm.pack_sequences(rows, TIME + gap)
    mask = packed.mask & ~np.isnan(packed.x[..., 0]) if wide else packed.as_segments()
    mask, real = jax.tree.map(jnp.asarray, mask), sum(map(len, rows)) - gap * len(rows)
    kernel = jax.random.normal(jax.random.key(0), (WINDOW, FEATURES, FEATURES)) / FEATURES
    given = jnp.asarray(packed.x), mask, kernel

    def forward(x: jax.Array, mask: Any, kernel: jax.Array) -> jax.Array:
        return layer(x, mask, kernel, dilation)

    def loss(*given: Any) -> jax.Array:
        return jnp.sum(forward(*given) ** 2)

    def result(found: Any) -> Any:
        if what == "train":
            return found[0], found[1][1]  # the loss and the gradient of the kernel
        return np.concatenate([y[: len(y) - gap] for y in jm.unpack_sequences(found, packed)])

    program = jax.jit(jax.value_and_grad(loss, (0, 2)) if what == "train" else forward)
    cost = {"fill": round(real / packed.mask.size, 3), "real_steps": real}
    return Entrant(lambda: jax.block_until_ready(program(*given)), result, cost)


def measure_gaps(options: argparse.Namespace) -> Iterator[store.Row]:
    for dilation in DILATIONS:
        for what in PASSES:
            made = {name: entrant(name, dilation, what) for name in METHODS}
            found = contest.run(made, (), f"dilation {dilation}, {what}", options.rounds)
            yield {"dilation": dilation, "what": what, "rivals": found}


def table_of_gaps(found: dict[str, Any]) -> str:
    rivals = {(row["dilation"], row["what"]): row["rivals"] for row in found["rows"]}

    def cells(name: str) -> Iterator[str]:
        yield name
        for dilation in DILATIONS:
            both = [rivals[dilation, what][name] for what in PASSES]
            yield f"{both[0]['fill']:.2f}"
            yield from (f"{one['real_steps'] / tables.median(one):,.0f}" for one in both)

    heads = ((f"dilation {n}: fill", "forward", "training") for n in DILATIONS)
    return tables.markdown(
        f"Rows of {TIME} steps, window {WINDOW}, {FEATURES} features: real steps a millisecond, on "
        f"{found['on']}.",
        ["convolution", *(name for head in heads for name in head)],
        map(cells, METHODS),
    )


SUITES = {
    "overhead": Suite(
        ("name", "size", "kind"),
        measure_overhead,
        table_of_overhead,
        {"--functions": some((*OPERATIONS, ENCODER))},
        rounds=30,
    ),
    "gaps": Suite(("dilation", "what"), measure_gaps, table_of_gaps, rounds=30),
}
