"""How many steps `method="dense"` should unroll per loop iteration on an accelerator.

    python -m bench unroll

One LSTM layer over full rows, forward and training, by the plain scan and by `"dense"` with several
counts of steps. `UNROLL` at the head of `jaxmask/recurrent/_choice.py`, and that `auto` takes
`"dense"` on a GPU, are chosen by hand from the results.
"""

import argparse
import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from rich.progress import track

from bench import calibrate, store, tables, timing
from jaxmask.recurrent import Choice

UNROLL = (1, 4, 8, 16)
SIZES = (  # batch, time, hidden
    (1, 128, 256),
    *((64, 128, hidden) for hidden in (16, 256, 1024)),
    (64, 16, 256),
    (512, 128, 256),
)
ROUNDS, LEAST = 9, 0.02  # seconds that a sample takes at least


def programs() -> Iterator[tuple[tuple, str, Any, tuple]]:
    """`(sizes, what), method, lowered, data` of each."""
    # Without gradients one step at a time is the engine's forward: a round of one step.
    methods = {"scan": Choice("scan")}
    methods |= {str(n): Choice("dense", steps=1, unroll=n) for n in UNROLL}
    for sizes in SIZES:
        data = calibrate.arguments(*sizes, fill=1.0)
        for name, method in methods.items():
            forward = jax.jit(functools.partial(calibrate.layer, method))
            train = calibrate.training_step(method)
            yield (sizes, "forward"), name, forward.lower(*data), data
            yield (sizes, "train"), name, train.lower(*data), data


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Median milliseconds by each method, a row for each size and pass."""
    groups, methods, lowered, data = zip(*programs(), strict=True)
    with ThreadPoolExecutor() as pool:  # to compile takes most of the time
        done = pool.map(lambda program: program.compile(), lowered)
        compiled = list(track(done, "compiling", total=len(lowered)))
    runs: dict[tuple, dict[str, Any]] = {group: {} for group in groups}
    for group, method, program, given in zip(groups, methods, compiled, data, strict=True):
        runs[group][method] = functools.partial(program, *given)
    rows = []
    for (sizes, what), run in track(runs.items(), "timing"):
        named = dict(zip(("batch", "time", "hidden"), sizes, strict=True))
        ms = timing.medians(timing.interleaved(run, options.rounds, least=LEAST))
        rows.append({**named, "what": what, "ms": ms})
    return {"steps": rows}


def table(found: dict[str, Any]) -> str:
    def cells(row: dict[str, Any]) -> list[str]:
        ms, sizes = row["ms"], f"{row['batch']} x {row['time']}, {row['hidden']}"
        ratios = (f"{ms['scan'] / ms[str(n)]:.2f}" for n in UNROLL)
        return [sizes, row["what"], f"{ms['scan']:.2f}", *ratios]

    head = ["rows x steps, features", "pass", "plain scan, ms"]
    return tables.markdown(
        'Time of the plain scan over that of `"dense"`, by steps an iteration, on '
        f"{store.machine_name(found['machine'])}.",
        [*head, *(f"{n} at a time" for n in UNROLL)],
        map(cells, found["steps"]),
    )
