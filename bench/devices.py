"""How the main job's throughput grows with 1, 2 and 4 virtual devices, and what bounds it.

    python -m bench devices

The model of `examples/pronounce.py` (preset "small") trains on batches of one shape, a process for
each number of devices, with a copy of the parameters on each device and with a share of them.
Beside the step: how many cores it keeps busy, adding up gradients alone, the input pipeline alone,
and writing and reading a checkpoint. Virtual devices share the cores of one machine: what is seen
is the cost of splitting work, not the gain of more hardware. The plan in `docs/devices.md` follows
from what was measured. Takes three minutes.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from bench import store, tables, timing
from bench.suite import Suite

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from _pronounce import data, devices, model
from _pronounce.checkpoint import Checkpoints
from _pronounce.settings import PRESETS
from _pronounce.training import State, Trainer

COUNTS, BATCH_SIZE, PRESET = (1, 2, 4), 256, PRESETS["small"]


def batches() -> data.Batches:
    entries = data.Entries.of(data.split(data.read_dictionary()).training).that_fit()
    return data.Batches(entries, BATCH_SIZE, max_shapes=PRESET.shapes, shuffle_seed=0)


def busy(function: Callable[[], Any], rounds: int) -> tuple[dict[str, float], float]:
    """Milliseconds of a call, and how many cores it keeps busy."""
    jax.block_until_ready(function())
    wall, cores = time.perf_counter(), time.process_time()
    samples = [1e3 * timing.seconds_of(function) for _ in range(rounds)]
    wall, cores = time.perf_counter() - wall, time.process_time() - cores
    return timing.spread(samples), round(cores / wall, 2)


def step_of(trainer: Trainer, state: State, batch: data.Batch) -> Callable[[], Any]:
    kept = [state, None]

    def step() -> Any:
        kept[:] = trainer.step(kept[0], batch, 0, 1e-3)
        return kept

    return step


def adding_up(params: Any, mesh: Any) -> Callable[[], Any]:
    """The gradients' reduction alone."""

    def of_shard(rows: jax.Array, params: Any) -> Any:
        return jax.lax.psum(params, devices.ROWS)

    run = jax.jit(devices.on_each_device(of_shard, mesh, out=PartitionSpec()))
    rows = devices.shard_rows(np.zeros(mesh.size), mesh)
    return lambda: run(rows, params)


def here(rounds: int) -> Iterator[store.Row]:
    """On all devices of this process, with a copy of the parameters and with a share."""
    batch, mesh = next(batches().epoch(0)), devices.all_devices()
    letters = int(batch.mask.sum())
    for spread in (False, True) if mesh.size > 1 else (False,):
        graphdef, params = model.split(PRESET.size, 0)
        trainer = Trainer(graphdef, mesh, 0, spread=spread)
        state = trainer.initial_state(params)
        compiling = timing.seconds_of(trainer.compile, state, [batch])
        reduction, _ = busy(adding_up(devices.lay_out(params, mesh), mesh), rounds)
        took, cores = busy(step_of(trainer, state, batch), rounds)
        yield {
            "what": "step",
            "devices": mesh.size,
            "spread": spread,
            "step_ms": took,
            "cores_busy": cores,
            "letters_per_second": round(1e3 * letters / took["median"]),
            "adding_up_ms": reduction,
            "compile_seconds": round(compiling, 2),
            "shape": list(batch.letters.shape),
            "fill": round(letters / batch.mask.size, 4),
        }


def printed(command: list[str], environment: dict[str, str] | None = None) -> str:
    """What Python prints, run from the top of the repository."""
    options = {"stdout": subprocess.PIPE, "text": True, "check": True, "env": environment}
    return subprocess.run([sys.executable, *command], cwd=tables.DOCS.parent, **options).stdout


def pipeline() -> dict[str, Any]:
    """Two epochs of batches and nothing else."""
    every = batches()
    start, letters, words, size = time.perf_counter(), 0, 0, 0
    for epoch in (0, 1):
        for batch in every.epoch(epoch):
            letters += int(batch.mask.sum())
            words += int((batch.indices >= 0).sum())
            size += sum(array.nbytes for array in batch)
    return {
        "letters_per_second": round(letters / (time.perf_counter() - start)),
        "bytes_a_letter": round(size / letters, 2),
        "shapes": len(every.one_of_each_shape()),
        "letters_a_word": round(letters / words, 3),
    }


def checkpoint() -> dict[str, Any]:
    """Parameters and moments, written and read."""
    graphdef, params = model.split(PRESET.size, 0)
    state = Trainer(graphdef, devices.all_devices(), 0).initial_state(params)
    draw = np.random.default_rng(0)  # as after some steps: zeros would be compressed to nothing

    def noise(leaf: jax.Array) -> jax.Array:
        return jax.device_put(draw.normal(size=leaf.shape).astype(leaf.dtype), leaf.sharding)

    trees = jax.tree.map(noise, state._asdict())
    with tempfile.TemporaryDirectory() as folder:
        kept = Checkpoints(Path(folder))
        kept.save(0, {}, **trees)
        written = timing.seconds_of(lambda: kept.save(1, {}, **trees))
        read = timing.seconds_of(lambda: [kept.tree(1, *item) for item in trees.items()])
        size = sum(p.stat().st_size for p in (kept.folder / "1").rglob("*") if p.is_file())
    return {
        "bytes": size,
        "write_seconds": round(written, 3),
        "read_seconds": round(read, 3),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    }


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    for count in COUNTS:
        flags = f"--xla_force_host_platform_device_count={count}"
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        command = ["-m", "bench.devices", str(options.rounds)]
        yield from json.loads(printed(command, environment).splitlines()[-1])
    for what, run in {"pipeline": pipeline, "checkpoint": checkpoint}.items():
        yield {"what": what, "devices": 1, "spread": False, **run()}


def table(found: dict[str, Any]) -> dict[str, str]:
    """A table of the rows, what bounds them, and the pipeline and the checkpoint beside them."""
    *rows, pipe, kept = found["rows"]
    rates = [row["letters_per_second"] for row in rows]
    cores = [row["step_ms"]["median"] * row["cores_busy"] for row in rows]

    def cells(row: store.Row, rate: int, core: float) -> list[Any]:
        kind, step = "shares" if row["spread"] else "copies", row["step_ms"]["median"]
        figures = [f"{step:.0f}", f"{rate:,}", f"{rate / rates[0]:.2f}", f"{row['cores_busy']:.2f}"]
        adding = f"{row['adding_up_ms']['median']:.1f}"
        return [row["devices"], kind, *figures, f"{core:.0f}", adding]

    lines = tables.markdown(
        f"A training step of the main job's BiLSTM ({kept['parameters']:,} parameters), "
        f"{BATCH_SIZE} words, on {found['on']}; medians of {rows[0]['step_ms']['rounds']} steps.",
        [
            *("devices", "parameters", "step, ms", "letters a second", "of one device"),
            *("cores busy", "core time of a step, ms", "adding up the gradients alone, ms"),
        ],
        map(cells, rows, rates, cores),
    )
    adding, rate = max(row["adding_up_ms"]["median"] for row in rows), pipe["letters_per_second"]
    text = (
        f"A step takes {min(cores):.0f} to {max(cores):.0f} ms of core time however it is split, "
        f"of which adding up the gradients is {adding:.1f} ms at the most. The input pipeline "
        f"alone gives {rate / 1e6:.1f} million real letters a second on one core, "
        f"{rate / rates[0]:,.0f} times what the model takes. A checkpoint of parameters and both "
        f"moments is {kept['bytes'] / 1e6:.1f} MB, is written in {kept['write_seconds']:.2f} s and "
        f"read in {kept['read_seconds']:.2f} s."
    )
    page = (tables.DOCS / "devices.md").read_text()
    *_, example = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return {
        "devices": f"{lines}\n{text}\n",
        "devices-plan": f"```\n{printed(['-c', example])}```\n",
    }


SUITES = {"devices": Suite(("what", "devices", "spread"), measure, table, rounds=15)}

if __name__ == "__main__":
    print(json.dumps(list(here(int(sys.argv[1])))))
