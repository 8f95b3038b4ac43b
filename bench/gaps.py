"""Convolution over packed rows: moved apart at each call, masked, or packed with gaps.

    python -m bench gaps

A window must not reach from one sequence of a packed row into the next. jaxmask moves the sequences
`dilation * (window - 1)` steps apart before a dense convolution, and back after it. RETURNN packs
them with such gaps, so that dense kernels run unchanged, and pays in every other layer. A third
method adds up one product for each step of the window, masked where it meets another sequence. Real
steps a millisecond of one layer, forward and with gradients, on the lengths of the workload "wmt".
Results at real steps must agree before anything is timed.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxmask as jm
from bench import tables, timing
from bench.agreement import require_same
from bench.workloads import WORKLOADS

TIME, FEATURES, WINDOW = 128, 128, 5
DILATIONS = (1, 4)
PASSES = ("forward", "train")
ROUNDS = 30


class Rows(NamedTuple):
    """Packed rows; `mask` is what the convolution gets."""

    x: jax.Array
    mask: Any
    packed: jm.packing.Packed
    gap: int = 0


def pack(gap: int) -> Rows:
    """The same sequences in rows, each followed by `gap` steps of padding."""
    lengths = WORKLOADS["wmt"].lengths(128)
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


def methods(dilation: int) -> dict[str, tuple[Rows, Layer]]:
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
    for name, (rows, layer) in methods(dilation).items():

        def loss(x: jax.Array, mask: Any, kernel: jax.Array, layer: Layer = layer) -> jax.Array:
            return jnp.sum(layer(x, mask, kernel) ** 2)

        arguments = rows.x, rows.mask, kernel
        both = jax.jit(layer), jax.jit(jax.value_and_grad(loss, argnums=(0, 2)))
        y, (total, (_, slope)) = (function(*arguments) for function in both)
        sequences = jm.unpack_sequences(y, rows.packed)
        flat = np.concatenate([row[: len(row) - rows.gap] for row in sequences])
        found = flat, total, slope
        expected = expected or found
        require_same(found, expected, name)
        for what, function in zip(PASSES, both, strict=True):
            functions[name, what] = lambda f=function, a=arguments: f(*a)
        real = len(flat)
        fills[name] = round(real / rows.packed.mask.size, 3)
    times = timing.interleaved(functions, rounds)
    return {
        "dilation": dilation,
        "real_steps": real,
        "most_sequences_in_a_row": pack(0).packed.max_segments,
        "methods": {
            name: {"fill": fill, **{what: times[name, what] for what in PASSES}}
            for name, fill in fills.items()
        },
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    rows = [run(dilation, options.rounds) for dilation in DILATIONS]
    return {"time": TIME, "features": FEATURES, "window": WINDOW, "rows": rows}


def table(found: dict[str, Any]) -> str:
    rows, lines = found["rows"], []
    head = [c for row in rows for c in (f"dilation {row['dilation']}: fill", "forward", "training")]
    for name in rows[0]["methods"]:
        lines.append([name])
        for row in rows:
            method = row["methods"][name]
            rates = (row["real_steps"] / method[what]["median"] for what in PASSES)
            lines[-1] += [f"{method['fill']:.2f}", *(f"{rate:,.0f}" for rate in rates)]
    return tables.markdown(
        f"Rows of {TIME} steps, window {WINDOW}, {FEATURES} features: real steps a millisecond, on "
        f"{found['machine']['processor']}.",
        ["convolution", *head],
        lines,
    )
