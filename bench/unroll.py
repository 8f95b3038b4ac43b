"""How many steps `method="dense"` should unroll per loop iteration on an accelerator.

    python -m bench unroll

One LSTM layer over full rows, forward and training, by the plain scan and by `"dense"` with
several numbers of steps. `UNROLL` at the head of `jaxmask/recurrent/_choice.py`, and that `auto`
takes `"dense"` on a GPU, are chosen by hand from `bench/results/unroll.json`.
"""

import argparse
import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
from rich.progress import track

from bench import calibrate, pages, timing
from jaxmask.recurrent import Choice

UNROLL = (1, 4, 8, 16)
SIZES = (  # batch, time, hidden
    (1, 128, 256),
    *((64, 128, hidden) for hidden in (16, 256, 1024)),
    (64, 16, 256),
    (512, 128, 256),
)
LEAST = 0.02  # seconds that a sample takes at least


class Program(NamedTuple):
    """One layer by one method: `run(*data)`, lowered and then compiled."""

    sizes: tuple[int, int, int]
    what: str
    method: str
    run: Any
    data: tuple[Any, ...]


def programs() -> Iterator[Program]:
    for sizes in SIZES:
        data = calibrate.arguments(*sizes, fill=1.0)
        # Without gradients one step at a time is the engine's forward: a round of one step.
        methods = {"scan": Choice("scan")}
        methods |= {str(n): Choice("dense", steps=1, unroll=n) for n in UNROLL}
        for name, method in methods.items():
            forward = jax.jit(functools.partial(calibrate.layer, method))
            train = calibrate.training_step(method)
            yield Program(sizes, "forward", name, forward.lower(*data), data)
            yield Program(sizes, "train", name, train.lower(*data), data)


def measure(rounds: int) -> list[dict[str, Any]]:
    """Median milliseconds by each method, a row for each size and pass."""
    lowered = list(programs())
    with ThreadPoolExecutor() as pool:  # to compile takes most of the time
        done = pool.map(lambda one: one._replace(run=one.run.compile()), lowered)
        compiled = list(track(done, "compiling", total=len(lowered)))
    groups: dict[Any, dict[str, Any]] = {}
    for one in compiled:
        group = groups.setdefault((one.sizes, one.what), {})
        group[one.method] = functools.partial(one.run, *one.data)
    rows = []
    for (sizes, what), run in track(groups.items(), "timing"):
        times = timing.interleaved(run, rounds, least=LEAST)
        named = dict(zip(("batch", "time", "hidden"), sizes, strict=True))
        rows.append(named | {"what": what, "ms": {n: t["median"] for n, t in times.items()}})
    return rows


def table(rows: list[dict[str, Any]], machine: str) -> str:
    lines = [
        f'Time of the plain scan over that of `"dense"`, by steps an iteration, on {machine}.',
        "",
        "| rows x steps, features | pass | plain scan, ms | "
        + " | ".join(f"{n} at a time" for n in UNROLL)
        + " |",
        "|---" * (3 + len(UNROLL)) + "|",
    ]
    for row in rows:
        ms, sizes = row["ms"], f"{row['batch']} x {row['time']}, {row['hidden']}"
        ratios = " | ".join(f"{ms['scan'] / ms[str(n)]:.2f}" for n in UNROLL)
        lines.append(f"| {sizes} | {row['what']} | {ms['scan']:.2f} | {ratios} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rows = measure(parser.parse_args().rounds)
    path = timing.save("unroll", {"steps": rows})
    pages.show(table(rows, timing.machine_name()), path, "recurrent.md")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
