"""One attention, a training step: jaxmask against `jax.nn` and PyTorch, by what a query may see.

    python -m bench attention
    python -m bench attention --cases causal --rounds 9

Queries, keys and values are given, and differentiated. Results must agree in loss and gradients, at
real steps, before anything is timed. Masks, or the ids of packed sequences, are arguments.
"""

import argparse
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxmask as jm
from bench import chart, contest, store, tables, timing
from bench.contest import Entrant
from bench.suite import Suite, some

HEADS, FEATURES = 8, 64


class Case(NamedTuple):
    """A query sees real keys of its row, or of its sequence where several are packed in a row."""

    batch: int = 4
    time: int = 2048
    lengths: tuple[int, ...] | None = None
    packed: int = 0
    causal: bool = False
    window: int | None = None

    @property
    def ids(self) -> np.ndarray | None:
        """`[batch, time]`: the sequence of each step, 0 in the padding; None where all are one."""
        steps, shape = np.arange(self.time), (self.batch, self.time)
        if self.packed:
            return np.broadcast_to(1 + steps * self.packed // self.time, shape).astype(np.int32)
        return None if self.lengths is None else steps < np.array(self.lengths)[:, None]


CASES = {
    "all real": Case(),
    "causal": Case(causal=True),
    "eight packed sequences a row": Case(packed=8),
    "padded, one long row": Case(lengths=(2048, 137, 137, 137)),
    "causal, window of 128": Case(causal=True, window=128),
    "32 short rows": Case(batch=32, time=128),
}


def ours(case: Case, q: Any, k: Any, v: Any, ids: Any, **options: Any) -> jax.Array:
    mask = jm.Segments(ids, max_segments=case.packed) if case.packed else ids
    seen = {"causal": case.causal, "window": case.window}
    return jm.attention.attend(q, mask, k, v, mask, **seen, **options)[0]


def of_jax(case: Case, q: Any, k: Any, v: Any, ids: Any) -> jax.Array:
    mask = None if ids is None else ids[:, None, None]
    if case.packed:
        mask = ids[:, None, :, None] == mask
    window = None if case.window is None else (case.window - 1, 0)
    seen = {"is_causal": case.causal, "local_window_size": window}
    return jax.nn.dot_product_attention(q, k, v, mask=mask, **seen)


def in_jax(attend: Callable, case: Case, arrays: list) -> Entrant:
    def step(arrays: list, cotangent: jax.Array, ids: Any) -> Any:
        def loss(arrays: list) -> jax.Array:
            return jnp.sum(attend(case, *arrays, ids) * cotangent)

        return jax.value_and_grad(loss)(arrays)

    *arrays, cotangent = map(jnp.asarray, arrays)
    given = arrays, cotangent, None if case.ids is None else jnp.asarray(case.ids)
    program, cost = timing.compiled_cost(step, *given)
    return Entrant(lambda: program(*given), cost=cost)


def in_torch(case: Case, arrays: list) -> Entrant:
    import torch

    *given, cotangent = (torch.tensor(array) for array in arrays)
    ids = None if case.ids is None else torch.tensor(case.ids)
    for tensor in given:
        tensor.requires_grad_()

    def hidden() -> Any:
        if case.window:
            steps = torch.arange(case.time)
            back = steps[:, None] - steps
            return (back >= 0) & (back < case.window)
        if case.packed:
            return ids[:, None, :, None] == ids[:, None, None]
        return None if ids is None else ids[:, None, None]

    def run() -> Any:
        for tensor in given:
            tensor.grad = None
        q, k, v = (tensor.transpose(1, 2) for tensor in given)
        seen = {"attn_mask": hidden(), "is_causal": case.causal and not case.window}
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, **seen)
        loss = (y.transpose(1, 2) * cotangent).sum()
        loss.backward()
        return loss.detach().numpy(), [tensor.grad.numpy() for tensor in given]

    return Entrant(run)


def run(case: Case, rounds: int) -> dict[str, Any]:
    draw, shape = np.random.default_rng(0), (case.batch, case.time, HEADS, FEATURES)
    arrays = [draw.normal(size=shape).astype(np.float32) for _ in range(4)]
    real = np.ones(shape[:2], bool) if case.ids is None else case.ids > 0
    arrays[-1] *= real[..., None, None]  # no cotangent of padding
    reference = functools.partial(ours, method="reference")
    entrants, left_out = contest.enter(
        {
            "jaxmask": lambda: in_jax(ours, case, arrays),
            "jaxmask reference": lambda: in_jax(reference, case, arrays),
            "jax.nn": lambda: in_jax(of_jax, case, arrays),
            "torch": lambda: in_torch(case, arrays),
        }
    )
    found = contest.run(entrants, (), str(case), rounds)
    return {"real_steps": int(real.sum()), "rivals": found, "left_out": left_out}


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    for name in options.cases:
        yield {"case": name, **run(CASES[name], options.rounds)}


def table(found: dict[str, Any]) -> str:
    by_case = {row["case"]: row["rivals"] for row in found["rows"]}
    names = list(dict.fromkeys(name for rivals in by_case.values() for name in rivals))
    in_jax = [name for name in names if name != "torch"]

    def cells(case: str, rivals: dict[str, Any]) -> list[str]:
        memory = (f"{rivals[name]['temporary_mebibytes']:.0f}" for name in in_jax)
        return [case, *(tables.each([rivals], name) for name in names), " / ".join(memory)]

    return tables.markdown(
        f"Milliseconds of a training step of {HEADS} heads of {FEATURES} in float32, 4 rows of "
        f"2048 steps or 32 of 128, on {found['on']}, jax {found['machine']['jax']}.",
        ["what a query sees", *names, "temporary MiB, " + " / ".join(in_jax)],
        (cells(case, by_case[case]) for case in CASES if case in by_case),
    )


def draw(found: dict[str, Any], path: Path) -> None:
    """A panel a case, a bar a rival."""
    about = f"milliseconds of a training step\n{found['on']}"
    figure, axes = chart.panels(len(found["rows"]), 1, about, (3.2, 1.1))
    for panel, row in zip(axes.flat, found["rows"], strict=True):
        names = list(row["rivals"])
        chart.bars(panel, [one["milliseconds"] for one in row["rivals"].values()], names, names)
        panel.set_title(row["case"], fontsize=9)
    figure.savefig(path, dpi=120)


SUITES = {"attention": Suite(("case",), measure, table, {"--cases": some(CASES)}, 3, draw)}
