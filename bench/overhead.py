"""What a mask costs: each masked function against the same JAX operation without a mask.

    python -m bench.overhead

Masks are arguments of the jitted functions. With a mask that is all True both must agree, in value
and gradient, before anything is timed; then the masked function gets a mask with 36 % real steps.
Results go to `bench/results/overhead.json`, and as a table to `bench/results/overhead.md`.
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
from bench import timing
from bench.workloads import log_normal

SIZES = ((32, 96, 64), (64, 256, 128), (16, 1024, 256))  # batch, time, feature
HEADS, CLASSES, FILL = 4, 32, 0.36


class Case(NamedTuple):
    """A masked function and its plain counterpart, of the arrays that `draw` makes."""

    name: str
    masked: Callable[..., Any]
    plain: Callable[..., Any]
    draw: Callable[[np.random.Generator, tuple[int, int, int]], tuple]


def features(draw: np.random.Generator, size: tuple[int, int, int]) -> tuple:
    return (draw.normal(size=size).astype(np.float32),)


def heads(draw: np.random.Generator, size: tuple[int, int, int]) -> tuple:
    batch, time, feature = size
    shape = batch, time, HEADS, feature // HEADS
    return tuple(draw.normal(size=shape).astype(np.float32) for _ in range(3))


def logits_and_labels(draw: np.random.Generator, size: tuple[int, int, int]) -> tuple:
    batch, time, _ = size
    logits = draw.normal(size=(batch, time, CLASSES)).astype(np.float32)
    return logits, draw.integers(0, CLASSES, (batch, time)).astype(np.int32)


def with_kernel(draw: np.random.Generator, size: tuple[int, int, int]) -> tuple:
    kernel = draw.normal(size=(3, size[2], size[2])).astype(np.float32) / size[2]
    return *features(draw, size), kernel


def plain_layer_norm(x: jax.Array) -> jax.Array:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-6)


def plain_instance_norm(x: jax.Array) -> jax.Array:
    mean, variance = x.mean(1, keepdims=True), x.var(1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-6)


def plain_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )


def masked_loss(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    per_step = jm.losses.softmax_cross_entropy_with_integer_labels(logits, mask, labels)
    return jm.losses.reduce(*per_step)


def plain_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


OPERATIONS = (
    Case("pool.mean", lambda x, m: jm.pool.mean(x, m)[0], lambda x: x.mean(1), features),
    Case("pool.max", lambda x, m: jm.pool.max(x, m)[0], lambda x: x.max(1), features),
    Case(
        "ops.softmax",
        lambda x, m: jm.ops.softmax(x, m)[0],
        lambda x: jax.nn.softmax(x, 1),
        features,
    ),
    Case("norm.layer", lambda x, m: jm.norm.layer(x, m)[0], plain_layer_norm, features),
    Case("norm.instance", lambda x, m: jm.norm.instance(x, m)[0], plain_instance_norm, features),
    Case(
        "attention.attend",
        lambda q, k, v, m: jm.attention.attend(q, m, k, v, m)[0],
        lambda q, k, v: jax.nn.dot_product_attention(q, k, v),
        heads,
    ),
    Case("conv.conv1d", lambda x, w, m: jm.conv.conv1d(x, m, w)[0], plain_conv, with_kernel),
    Case("losses, cross entropy", masked_loss, plain_loss, logits_and_labels),
)


def gradient(function: Callable, count: int) -> Callable:
    """The gradient of a sum that weighs every element, in the floating arguments."""

    def total(*arguments: Any) -> jax.Array:
        y = function(*arguments)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

    return jax.value_and_grad(total, argnums=tuple(range(count)))


def forward_and_gradient(case: Case, arrays: tuple) -> dict[str, tuple[Callable, Callable]]:
    floats = sum(np.issubdtype(a.dtype, np.floating) for a in arrays)
    return {
        "forward": (case.masked, case.plain),
        "with gradients": (gradient(case.masked, floats), gradient(case.plain, floats)),
    }


# ------------------------------------------------------------------- a whole training step


class PlainBlock(nnx.Module):
    """The encoder block of Flax's own layers, without a mask."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.attention = nnx.MultiHeadAttention(HEADS, features, decode=False, rngs=rngs)
        self.attention_norm = nnx.LayerNorm(features, rngs=rngs)
        self.mlp_in = nnx.Linear(features, 4 * features, rngs=rngs)
        self.mlp_out = nnx.Linear(4 * features, features, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp_out(nnx.gelu(self.mlp_in(self.mlp_norm(x))))


def encoder_steps(feature: int) -> tuple[Callable, Callable, Any, Any]:
    """A step of SGD on two blocks, masked and plain, and their parameters."""
    rngs = nnx.Rngs(0)
    blocks = [
        jm.nn.TransformerEncoderBlock(HEADS, feature, norm_first=True, rngs=rngs) for _ in range(2)
    ]
    masked_graph, masked = nnx.split(jm.nn.Sequential(*blocks))
    plain_graph, plain = nnx.split(nnx.Sequential(*(PlainBlock(feature, rngs=rngs) for _ in "ab")))

    def masked_loss(params: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
        y, mask = nnx.merge(masked_graph, params)(x, mask)
        return jm.losses.reduce(*jm.losses.l2_loss(y, mask, x))

    def plain_loss(params: Any, x: jax.Array) -> jax.Array:
        return optax.l2_loss(nnx.merge(plain_graph, params)(x), x).mean()

    def step(loss: Callable) -> Callable:
        def run(params: Any, *arguments: Any) -> tuple:
            value, slope = jax.value_and_grad(loss)(params, *arguments)
            return value, jax.tree.map(lambda p, g: p - 1e-3 * g, params, slope)

        return jax.jit(run)

    return step(masked_loss), step(plain_loss), masked, plain


# ----------------------------------------------------------------------------------- running


def agree(ours: Any, theirs: Any, where: str) -> None:
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        scale = float(jnp.max(jnp.abs(b))) or 1.0
        if not float(jnp.max(jnp.abs(a - b))) < 1e-3 * scale:
            raise SystemExit(f"{where}: the masked function differs from the plain one")


def mask_of(size: tuple[int, int, int]) -> jax.Array:
    return jnp.asarray(np.arange(size[1]) < log_normal(size[0], size[1], FILL)[:, None])


def measure(pair: tuple[Callable, Callable], arrays: tuple, mask: jax.Array, rounds: int) -> dict:
    masked, plain = (jax.jit(function) for function in pair)
    times = timing.interleaved(
        {"masked": lambda: masked(*arrays, mask), "plain": lambda: plain(*arrays)}, rounds
    )
    ratio = times["masked"]["median"] / times["plain"]["median"]
    return {"milliseconds": times, "masked_over_plain": round(ratio, 3)}


def run_operations(size: tuple[int, int, int], rounds: int) -> list[dict]:
    rows = []
    for case in OPERATIONS:
        arrays = tuple(map(jnp.asarray, case.draw(np.random.default_rng(0), size)))
        for kind, pair in forward_and_gradient(case, arrays).items():
            full = jnp.ones(size[:2], bool)
            agree(
                jax.jit(pair[0])(*arrays, full), jax.jit(pair[1])(*arrays), f"{case.name}, {kind}"
            )
            measured = measure(pair, arrays, mask_of(size), rounds)
            rows.append({"name": case.name, "size": size, "kind": kind, **measured})
    return rows


def run_encoder(size: tuple[int, int, int], rounds: int) -> dict:
    masked, plain, masked_params, plain_params = encoder_steps(size[2])
    x, mask = jnp.asarray(features(np.random.default_rng(0), size)[0]), mask_of(size)
    times = timing.interleaved(
        {"masked": lambda: masked(masked_params, x, mask), "plain": lambda: plain(plain_params, x)},
        rounds,
    )
    ratio = times["masked"]["median"] / times["plain"]["median"]
    row = {"name": "encoder, two blocks", "size": size, "kind": "training step"}
    return {**row, "milliseconds": times, "masked_over_plain": round(ratio, 3)}


def table(rows: list[dict], machine: dict[str, Any]) -> str:
    """Masked over plain, one line a function."""
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    head = " | ".join("x".join(map(str, size)) for size in sizes)
    lines = [
        f"Time with a mask over time without, on {machine['processor']}, jax {machine['jax']}.",
        "",
        f"| function | what | {head} |",
        "|---|---|" + "---|" * len(sizes),
    ]
    for name, kind in dict.fromkeys((row["name"], row["kind"]) for row in rows):
        cells = [
            f"{row['masked_over_plain']:.2f}"
            for row in rows
            if (row["name"], row["kind"]) == (name, kind)
        ]
        lines.append(f"| {name} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    rows = [row for size in SIZES for row in run_operations(size, rounds)]
    rows += [run_encoder(size, max(rounds // 3, 3)) for size in SIZES]
    path = timing.save("overhead", {"fill": FILL, "rows": rows})
    text = table(rows, timing.machine())
    path.with_suffix(".md").write_text(text)
    print(text, f"wrote {path} and {path.with_suffix('.md')}", sep="\n")


if __name__ == "__main__":
    main()
