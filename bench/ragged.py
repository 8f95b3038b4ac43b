"""What `ragged_vmap` costs: a row function under it against the same written by hand on a batch.

    python -m bench ragged

By hand means what one writes who knows the mask: selects before and after, no more. Both must agree
in value and gradient before anything is timed. Masks are arguments of the jitted functions.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmask as jm
from bench import suite, tables, timing
from bench.agreement import require_same, with_gradient
from bench.row_functions import steps, wide

BATCH, TIME, FEATURES, HEADS = 32, 256, 128, 4


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
    layout = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=layout)


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
    indices = mask.sum(1)[:, None] - 1 - jnp.arange(TIME)
    x = steps(jnp.where(wide(mask), x, 0), indices)
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


CASES = {  # of one row and parameters, and the same of a batch and its mask
    "attention": (attention, attention_by_hand),
    "LSTM": (lstm, lstm_by_hand),
    "convolutions": (convolutions, convolutions_by_hand),
    "prepend a token": (prepended, prepended_by_hand),
    "append a token": (appended, appended_by_hand),
    "flip": (flipped, flipped_by_hand),
    "differences": (differences, differences_by_hand),
    "sort": (ordered, ordered_by_hand),
}
KINDS = ("forward", "with gradients")


def run(name: str, kind: str, rounds: int) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, TIME + 1, BATCH)
    lengths[:2] = TIME, 1
    x = jnp.asarray(draw.normal(size=(BATCH, TIME, FEATURES)), jnp.float32)
    w = jnp.asarray(draw.normal(size=(FEATURES, 4 * FEATURES)) / np.sqrt(FEATURES), jnp.float32)
    arrays = x, jnp.asarray(np.arange(TIME) < lengths[:, None]), w

    row, hand = CASES[name]
    ragged = jm.ragged_vmap(row, (0, None))
    pair = {"ragged": lambda x, m, w: ragged(x, m, w)[0], "hand": hand}
    if kind == "with gradients":
        pair = {who: with_gradient(function, (0, 2)) for who, function in pair.items()}
    programs, seconds = {}, {who: [] for who in pair}
    for _ in range(3):
        for who, function in pair.items():
            jax.clear_caches()
            programs[who], spent = timing.compiled(function, *arrays)
            seconds[who].append(spent)
    require_same(programs["ragged"](*arrays), programs["hand"](*arrays), f"{name}, {kind}")
    runs = {who: functools.partial(program, *arrays) for who, program in programs.items()}
    times = timing.interleaved(runs, rounds, least=0.02)
    spent = {who: round(sorted(values)[1], 3) for who, values in seconds.items()}
    return {
        "name": name,
        "kind": kind,
        "milliseconds": times,
        "ragged_over_hand": timing.ratio(times, "ragged", "hand"),
        "trace_and_compile_seconds": spent,
        "trace_and_compile_ratio": round(spent["ragged"] / spent["hand"], 2),
    }


def table(found: dict[str, Any]) -> str:
    rows, machine = found["rows"], found["machine"]

    def cells(name: str) -> list[str]:
        forward, backward = (row for row in rows if row["name"] == name)
        ratios = [row["ragged_over_hand"] for row in (forward, backward)]
        return [name, *(f"{x:.2f}" for x in (*ratios, backward["trace_and_compile_ratio"]))]

    return tables.markdown(
        f"Time under `ragged_vmap` over time by hand, batch {BATCH}, time {TIME}, features "
        f"{FEATURES}, on {machine['processor']}, jax {machine['jax']}.",
        ["row function", *KINDS, "trace and compile, with gradients"],
        map(cells, dict.fromkeys(row["name"] for row in rows)),
    )


def main() -> None:
    command = suite.parser(__doc__, 15)
    command.add_argument("--only", default="", help="the names that contain this")
    options = command.parse_args()

    def measure() -> dict[str, Any]:
        names = [name for name in CASES if options.only in name]
        return {"rows": [run(name, kind, options.rounds) for name in names for kind in KINDS]}

    suite.run("ragged", options, measure, table)


if __name__ == "__main__":
    main()
