"""Convolution over packed rows: moved apart at each call, masked, or packed with gaps.

    python -m bench.gaps

A window must not reach from one sequence of a packed row into the next. jaxmask moves the sequences
`dilation * (window - 1)` steps apart before a dense convolution, and back after it. RETURNN packs
them with such gaps, so that dense kernels run as they are, and pays in every other layer. A third
way adds up one product for each step of the window, masked where it meets another sequence. Real
steps a millisecond of one layer, forward and with gradients, on the lengths of the workload "wmt".
Results at real steps must agree before anything is timed; they go to `bench/results/gaps.json`,
and as a table beside it and into `docs/batching.md`.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxmask as jm
from bench import pages, timing
from bench.workloads import SEED, WORKLOADS

TIME, FEATURES, WINDOW = 128, 128, 5
DILATIONS = (1, 4)


class Rows(NamedTuple):
    """Packed rows; `mask` is what the convolution gets."""

    x: jax.Array
    mask: Any
    packed: jm.packing.Packed
    gap: int = 0


def pack(gap: int) -> Rows:
    """The same sequences in rows, each with `gap` steps of padding behind it."""
    workload = WORKLOADS["wmt"]
    lengths = workload.draw(np.random.default_rng(SEED), 128)
    lengths = np.clip(np.round(lengths), workload.least, workload.most).astype(int)
    values = np.random.default_rng(0).normal(size=(lengths.sum(), FEATURES)).astype(np.float32)
    rows = np.split(values, np.cumsum(lengths)[:-1])
    rows = [np.pad(row, ((0, gap), (0, 0)), constant_values=np.nan) for row in rows]
    packed = jm.pack_sequences(rows, TIME + gap)
    mask = packed.as_segments() if not gap else packed.mask & ~np.isnan(packed.x[..., 0])
    return Rows(jnp.asarray(packed.x), jax.tree.map(jnp.asarray, mask), packed, gap)


def masked(x: jax.Array, segments: jm.Segments, kernel: jax.Array, dilation: int) -> jax.Array:
    """One product for each step of the window."""
    x, ids, reach = jm.ops.fill(x, segments)[0], segments.ids, dilation * (WINDOW // 2)
    far_x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
    far_ids = jnp.pad(ids, ((0, 0), (reach, reach)))
    y, time = jnp.zeros_like(x), x.shape[1]
    for k in range(WINDOW):
        here = slice(k * dilation, k * dilation + time)
        same = (far_ids[:, here] == ids) & (ids > 0)
        y += jnp.where(same[..., None], far_x[:, here], 0) @ kernel[k]
    return y


Layer = Callable[[jax.Array, Any, jax.Array], jax.Array]


def ways(dilation: int) -> dict[str, tuple[Rows, Layer]]:
    def ours(x: jax.Array, mask: Any, kernel: jax.Array) -> jax.Array:
        return jm.conv.conv1d(x, mask, kernel, dilation=dilation)[0]

    def by_steps(x: jax.Array, mask: Any, kernel: jax.Array) -> jax.Array:
        return masked(x, mask, kernel, dilation)

    tight, wide = pack(0), pack(dilation * (WINDOW - 1))
    return {
        "moved apart (jaxmask)": (tight, ours),
        "masked": (tight, by_steps),
        "packed with gaps": (wide, ours),
    }


def run(dilation: int, rounds: int) -> dict[str, Any]:
    kernel = jax.random.normal(jax.random.key(0), (WINDOW, FEATURES, FEATURES)) / FEATURES
    functions, expected, fills, real = {}, None, {}, 0
    for name, (rows, layer) in ways(dilation).items():

        def loss(x: jax.Array, mask: Any, kernel: jax.Array, layer: Layer = layer) -> jax.Array:
            return jnp.sum(layer(x, mask, kernel) ** 2)

        forward = jax.jit(layer)
        train = jax.jit(jax.value_and_grad(loss, argnums=(0, 2)))
        arguments = rows.x, rows.mask, kernel
        y = jm.unpack_sequences(forward(*arguments), rows.packed)
        flat = np.concatenate([row[: len(row) - rows.gap] for row in y])
        found = flat, float(train(*arguments)[0]), np.asarray(train(*arguments)[1][1])
        expected = expected or found
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
        functions[name, "forward"] = lambda f=forward, a=arguments: f(*a)
        functions[name, "train"] = lambda f=train, a=arguments: f(*a)
        real = len(flat)
        fills[name] = round(real / rows.packed.mask.size, 3)
    times = timing.interleaved(functions, rounds)
    return {
        "dilation": dilation,
        "real_steps": real,
        "most_sequences_in_a_row": pack(0).packed.max_segments,
        "ways": {
            name: {"fill": fill, **{what: times[name, what] for what in ("forward", "train")}}
            for name, fill in fills.items()
        },
    }


def table(rows: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """Real steps a millisecond, one line a way, three columns a dilation."""
    heads = [f"dilation {row['dilation']}: fill | forward | training" for row in rows]
    lines = [
        f"Rows of {TIME} steps, window {WINDOW}, {FEATURES} features: real steps a millisecond, on "
        f"{machine['processor']}.",
        "",
        f"| | {' | '.join(heads)} |",
        "|---|" + "---|" * 3 * len(rows),
    ]
    for name in rows[0]["ways"]:
        cells = []
        for row in rows:
            way = row["ways"][name]
            rates = [row["real_steps"] / way[what]["median"] for what in ("forward", "train")]
            cells += [f"{way['fill']:.2f}", *(f"{rate:,.0f}" for rate in rates)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    rows = []
    for dilation in DILATIONS:
        print(f"dilation {dilation} ...", flush=True)
        rows.append(run(dilation, rounds))
    sizes = {"time": TIME, "features": FEATURES, "window": WINDOW}
    path, text = timing.save("gaps", {**sizes, "rows": rows}), table(rows, timing.machine())
    pages.show(text, path, "batching.md")
    print(text, f"wrote {path}, and its table beside it and into docs/batching.md", sep="\n")


if __name__ == "__main__":
    main()
