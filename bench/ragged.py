"""What `ragged_vmap` costs: a row function under it against the same written by hand on a batch.

    python -m bench.ragged

By hand means what one writes who knows the mask: selects before and after, no more. Both must agree
in value and gradient before anything is timed. Masks are arguments of the jitted functions. Results
go to `bench/results/ragged.json`, and as a table to `bench/results/ragged.md`.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxmask as jm
from bench import timing

BATCH, TIME, FEATURES, HEADS = 32, 256, 128, 4


class Case(NamedTuple):
    """A function of one row and parameters, and the same of a batch and its mask."""

    name: str
    row: Callable[..., Any]
    hand: Callable[..., Any]


def wide(mask: jax.Array) -> jax.Array:
    return mask[..., None]


def attention(row: jax.Array, w: jax.Array) -> jax.Array:
    q, k, v = (
        (row @ w[:, i * FEATURES : (i + 1) * FEATURES]).reshape(-1, HEADS, FEATURES // HEADS)
        for i in range(3)
    )
    scores = jnp.einsum("qhd,khd->hqk", q, k) / np.sqrt(FEATURES // HEADS)
    y = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores), v)
    return row + y.reshape(-1, FEATURES) @ w[:, 3 * FEATURES :]


def attention_by_hand(x: jax.Array, mask: jax.Array, w: jax.Array) -> jax.Array:
    x = jnp.where(wide(mask), x, 0)
    q, k, v = (
        (x @ w[:, i * FEATURES : (i + 1) * FEATURES]).reshape(BATCH, -1, HEADS, FEATURES // HEADS)
        for i in range(3)
    )
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(FEATURES // HEADS)
    scores = jnp.where(mask[:, None, None], scores, -1e30)
    y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
    y = x + y.reshape(BATCH, -1, FEATURES) @ w[:, 3 * FEATURES :]
    return jnp.where(wide(mask), y, 0)


def lstm_step(carry: Any, v: jax.Array, w: jax.Array) -> tuple[Any, jax.Array]:
    h, c = carry
    i, f, g, o = jnp.split((v + h) @ w, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def lstm(row: jax.Array, w: jax.Array) -> jax.Array:
    zero = jnp.zeros(FEATURES)
    return jax.lax.scan(lambda carry, v: lstm_step(carry, v, w), (zero, zero), row)[1]


def lstm_by_hand(x: jax.Array, mask: jax.Array, w: jax.Array) -> jax.Array:
    zero = jnp.zeros((BATCH, FEATURES))

    def step(carry: Any, inputs: Any) -> tuple[Any, jax.Array]:
        v, real = inputs
        new, y = lstm_step(carry, v, w)
        held = jax.tree.map(lambda a, b: jnp.where(wide(real), a, b), new, carry)
        return held, jnp.where(wide(real), y, 0)

    x = jnp.where(wide(mask), x, 0)
    return jax.lax.scan(step, (zero, zero), (x.swapaxes(0, 1), mask.T))[1].swapaxes(0, 1)


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    numbers = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=numbers)


def kernels(w: jax.Array) -> list[jax.Array]:
    return [
        w[:, k * FEATURES : (k + 1) * FEATURES][None] * jnp.ones((3, 1, 1)) / 3 for k in range(3)
    ]


def convolutions(row: jax.Array, w: jax.Array) -> jax.Array:
    for kernel in kernels(w):
        row = jax.nn.relu(convolve(row[None], kernel)[0])
    return row


def convolutions_by_hand(x: jax.Array, mask: jax.Array, w: jax.Array) -> jax.Array:
    x = jnp.where(wide(mask), x, 0)
    for kernel in kernels(w):
        x = jnp.where(wide(mask), jax.nn.relu(convolve(x, kernel)), 0)
    return x


def prepended(row: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.tanh(jnp.concatenate([w[:1, :FEATURES], row]) @ w[:, :FEATURES])


def prepended_by_hand(x: jax.Array, mask: jax.Array, w: jax.Array) -> jax.Array:
    x = jnp.where(wide(mask), x, 0)
    token = jnp.broadcast_to(w[:1, :FEATURES], (BATCH, 1, FEATURES))
    y = jnp.tanh(jnp.concatenate([token, x], 1) @ w[:, :FEATURES])
    longer = jnp.concatenate([jnp.ones((BATCH, 1), bool), mask], 1)
    return jnp.where(wide(longer), y, 0)


def appended(row: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.concatenate([row, w[:1, :FEATURES]])


def appended_by_hand(x: jax.Array, mask: jax.Array, w: jax.Array) -> jax.Array:
    x = jnp.pad(jnp.where(wide(mask), x, 0), ((0, 0), (0, 1), (0, 0)))
    end = jnp.arange(TIME + 1) == mask.sum(1)[:, None]
    return jnp.where(wide(end), w[0, :FEATURES], x)


def flipped(row: jax.Array, w: jax.Array) -> jax.Array:
    return row[::-1] * w[0, :FEATURES]


def flipped_by_hand(x: jax.Array, mask: jax.Array, w: jax.Array) -> jax.Array:
    place = jnp.maximum(mask.sum(1)[:, None] - 1 - jnp.arange(TIME), 0)
    x = jnp.take_along_axis(jnp.where(wide(mask), x, 0), place[..., None], axis=1)
    return jnp.where(wide(mask), x * w[0, :FEATURES], 0)


def differences(row: jax.Array, w: jax.Array) -> jax.Array:
    return (row[1:] - row[:-1]) * w[0, :FEATURES]


def differences_by_hand(x: jax.Array, mask: jax.Array, w: jax.Array) -> jax.Array:
    x = jnp.where(wide(mask), x, 0)
    return jnp.where(wide(mask[:, 1:]), (x[:, 1:] - x[:, :-1]) * w[0, :FEATURES], 0)


def ordered(row: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.sort(row, axis=0) * w[0, :FEATURES]


def ordered_by_hand(x: jax.Array, mask: jax.Array, w: jax.Array) -> jax.Array:
    x = jnp.sort(jnp.where(wide(mask), x, 3e38), axis=1)
    return jnp.where(wide(mask), x, 0) * w[0, :FEATURES]


CASES = (
    Case("attention", attention, attention_by_hand),
    Case("LSTM", lstm, lstm_by_hand),
    Case("convolutions", convolutions, convolutions_by_hand),
    Case("prepend a token", prepended, prepended_by_hand),
    Case("append a token", appended, appended_by_hand),
    Case("flip", flipped, flipped_by_hand),
    Case("differences", differences, differences_by_hand),
    Case("sort", ordered, ordered_by_hand),
)


def gradient(function: Callable[..., jax.Array]) -> Callable[..., Any]:
    def total(x: jax.Array, mask: jax.Array, w: jax.Array) -> jax.Array:
        y = function(x, mask, w)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

    return jax.value_and_grad(total, argnums=(0, 2))


def agree(ours: Any, theirs: Any, where: str) -> None:
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        scale = float(jnp.max(jnp.abs(b))) or 1.0
        if not float(jnp.max(jnp.abs(a - b))) < 1e-3 * scale:
            raise SystemExit(f"{where}: ragged_vmap differs from the code by hand")


def measure(case: Case, kind: str, arrays: tuple, rounds: int) -> dict[str, Any]:
    ragged = jm.ragged_vmap(case.row, (0, None))
    pair = {"ragged": lambda x, m, w: ragged(x, m, w)[0], "hand": case.hand}
    if kind == "with gradients":
        pair = {name: gradient(function) for name, function in pair.items()}
    compiled, seconds = {}, {name: [] for name in pair}
    for _ in range(3):
        for name, function in pair.items():
            jax.clear_caches()
            compiled[name], spent = timing.compile_seconds(function, *arrays)
            seconds[name].append(spent)
    agree(compiled["ragged"](*arrays), compiled["hand"](*arrays), f"{case.name}, {kind}")
    times = timing.interleaved(
        {name: lambda f=f: f(*arrays) for name, f in compiled.items()}, rounds, least=0.02
    )
    ratio = times["ragged"]["median"] / times["hand"]["median"]
    spent = {name: round(sorted(values)[1], 3) for name, values in seconds.items()}
    return {
        "name": case.name,
        "kind": kind,
        "milliseconds": times,
        "ragged_over_hand": round(ratio, 3),
        "trace_and_compile_seconds": spent,
        "trace_and_compile_ratio": round(spent["ragged"] / spent["hand"], 2),
    }


def table(rows: list[dict], machine: dict[str, Any]) -> str:
    lines = [
        f"Time under `ragged_vmap` over time by hand, batch {BATCH}, time {TIME}, features "
        f"{FEATURES}, on {machine['processor']}, jax {machine['jax']}.",
        "",
        "| row function | forward | with gradients | trace and compile, with gradients |",
        "|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        both = {row["kind"]: row for row in rows if row["name"] == name}
        forward, backward = both["forward"], both["with gradients"]
        lines.append(
            f"| {name} | {forward['ragged_over_hand']:.2f} | {backward['ragged_over_hand']:.2f} "
            f"| {backward['trace_and_compile_ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="the names that contain this")
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, TIME + 1, BATCH)
    lengths[:2] = TIME, 1
    x = jnp.asarray(draw.normal(size=(BATCH, TIME, FEATURES)), jnp.float32)
    w = jnp.asarray(draw.normal(size=(FEATURES, 4 * FEATURES)) / np.sqrt(FEATURES), jnp.float32)
    arrays = x, jnp.asarray(np.arange(TIME) < lengths[:, None]), w
    rows = [
        measure(case, kind, arrays, options.rounds)
        for case in CASES
        if options.only in case.name
        for kind in ("forward", "with gradients")
    ]
    text = table(rows, timing.machine())
    if not options.only:
        timing.save("ragged", {"rows": rows}).with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
