"""One attention, a training step: jaxmask against `jax.nn` and PyTorch, by what a query may see.

    python -m bench attention
    python -m bench attention --cases causal --rounds 9

Queries, keys and values are given, and differentiated. Results must agree in loss and gradients, at
real steps, before anything is timed. Masks, or the ids of packed sequences, are arguments.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

import jaxmask as jm
from bench import chart, contest, store, tables, timing
from bench.contest import Entrant

HEADS, FEATURES = 8, 64
OURS, REFERENCE = "jaxmask", "jaxmask reference"
KEY, ROUNDS = ("case",), 3


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
OPTIONS = {"--cases": {"nargs": "*", "choices": CASES, "default": list(CASES)}}


def ours(case: Case, **options: Any) -> Callable:
    def attend(q: jax.Array, k: jax.Array, v: jax.Array, ids: Any) -> jax.Array:
        mask = jm.Segments(ids, max_segments=case.packed) if case.packed else ids
        seen = {"causal": case.causal, "window": case.window}
        return jm.attention.attend(q, mask, k, v, mask, **seen, **options)[0]

    return attend


def of_jax(case: Case) -> Callable:
    def attend(q: jax.Array, k: jax.Array, v: jax.Array, ids: Any) -> jax.Array:
        mask = None if ids is None else ids[:, None, None]
        if case.packed:
            mask = ids[:, None, :, None] == mask
        window = None if case.window is None else (case.window - 1, 0)
        seen = {"is_causal": case.causal, "local_window_size": window}
        return jax.nn.dot_product_attention(q, k, v, mask=mask, **seen)

    return attend


def in_jax(attend: Callable, arrays: list, ids: Any) -> Entrant:
    def step(arrays: list, cotangent: jax.Array, ids: Any) -> Any:
        def loss(arrays: list) -> jax.Array:
            return jnp.sum(attend(*arrays, ids) * cotangent)

        return jax.value_and_grad(loss)(arrays)

    *given, cotangent = map(jnp.asarray, arrays)
    ids = None if ids is None else jnp.asarray(ids)
    program, cost = timing.compiled_cost(step, given, cotangent, ids)
    return Entrant(lambda: program(given, cotangent, ids), lambda found: found, cost)


def in_torch(case: Case, arrays: list, ids: np.ndarray | None) -> Entrant:
    import torch

    *given, cotangent = (torch.tensor(array) for array in arrays)
    ids = None if ids is None else torch.tensor(ids)
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

    return Entrant(run, lambda found: found, {})


def run(case: Case, rounds: int) -> dict[str, Any]:
    draw, shape = np.random.default_rng(0), (case.batch, case.time, HEADS, FEATURES)
    arrays = [draw.normal(size=shape).astype(np.float32) for _ in range(4)]
    ids = case.ids
    real = np.ones(shape[:2], bool) if ids is None else ids > 0
    arrays[-1] *= real[..., None, None]  # no cotangent of padding
    makers: dict[str, Callable[[], Entrant]] = {
        OURS: lambda: in_jax(ours(case), arrays, ids),
        REFERENCE: lambda: in_jax(ours(case, method="reference"), arrays, ids),
        "jax.nn": lambda: in_jax(of_jax(case), arrays, ids),
        "torch": lambda: in_torch(case, arrays, ids),
    }
    entrants, left_out = contest.enter(makers)
    found = contest.run(entrants, [], str(case), rounds)
    return {"real_steps": int(real.sum()), "rivals": found, "left_out": left_out}


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    for name in track(options.cases, "measuring"):
        yield {"case": name, **run(CASES[name], options.rounds)}


def table(found: dict[str, Any]) -> str:
    by_case = {row["case"]: row["rivals"] for row in found["rows"]}
    names = list(dict.fromkeys(name for rivals in by_case.values() for name in rivals))

    def cells(case: str) -> list[str]:
        rivals = by_case[case]
        in_jax = [name for name in names if "torch" not in name]
        times = (tables.each([rivals], name) for name in names)
        memory = (f"{rivals[name]['temporary_mebibytes']:.0f}" for name in in_jax)
        return [case, *times, " / ".join(memory)]

    return tables.markdown(
        f"Milliseconds of a training step of {HEADS} heads of {FEATURES} in float32, 4 rows of "
        f"2048 steps or 32 of 128, on {found['machine']['processor']}, "
        f"jax {found['machine']['jax']}.",
        ["what a query sees", *names, "temporary MiB, " + " / ".join(names[:-1])],
        [cells(case) for case in CASES if case in by_case],
    )


def draw(found: dict[str, Any], path: Path) -> None:
    chart.bars(found, path, "case", "milliseconds of a training step")
