"""Results as JSON in `bench/results`: the machines, and a line a measurement."""

import functools
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

FOLDER = Path(__file__).parent / "results"
LIBRARIES = ("jaxmask", "jax", "jaxlib", "flax", "keras", "torch", "sequence-layers")

Row = dict[str, Any]


@functools.cache
def machine() -> dict[str, Any]:
    """What is measured on."""
    installed = {one.metadata["Name"]: one.version for one in metadata.distributions()}
    return {
        "processor": _processor(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "versions": {name: installed[name] for name in LIBRARIES if name in installed},
    }


def machine_name(of: dict[str, Any] | None = None) -> str:
    """The accelerator, or the processor if there is none."""
    of = of or machine()
    return of["processor"] if of["device"] == "cpu" else of["device"]


def _processor() -> str:
    """Name, cores, family and model: virtual machines often hide the exact name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    pairs = [tuple(map(str.strip, line.split(":", 1))) for line in lines if ":" in line]
    names = [value for key, value in pairs if key == "model name"]
    if not names:
        return platform.processor() or platform.machine()
    facts = dict(pairs)
    kind = f"family {facts.get('cpu family')}, model {facts.get('model')}"
    return f"{names[0]} ({kind}), {len(names)} cores"


def path(name: str) -> Path:
    """Where results of a suite are; of the recurrent layers, those of each kind of device apart."""
    kind = jax.default_backend() if name == "recurrent" else "cpu"
    return FOLDER / (f"{name}.json" if kind == "cpu" else f"{name}-{kind}.json")


def merge(path: Path, row: Row, key: tuple[str, ...]) -> None:
    """Add a row of this machine to a file; it replaces the one that has the same key, if any."""
    kept = read(path) if path.exists() else {"machines": {}, "rows": []}
    kept["machines"][machine_name()] = machine()
    rows = [*kept["rows"], {"machine": machine_name(), **row}]
    write(path, kept["machines"], list({_named(row, key): row for row in rows}.values()))


def _named(row: Row, key: tuple[str, ...]) -> str:
    return json.dumps([row.get(field) for field in ("machine", *key)])


def write(path: Path, machines: dict[str, Any], rows: list[Row]) -> None:
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(f'{{\n"machines": {json.dumps(machines)},\n"rows": [\n{lines}\n]\n}}\n')
    os.replace(unfinished, path)  # noqa: PTH105


def read(path: Path) -> Row:
    return json.loads(path.read_text())


def load(path: Path, name: str | None = None) -> Row:
    """What was measured on the machine named, else on this one, else on the only one."""
    found = read(path)
    names = sorted(found["machines"])
    if name is None:
        name = machine_name() if machine_name() in names or len(names) != 1 else names[0]
    if name not in names:
        raise SystemExit(f"{path} has no results of {name}, but of {', '.join(names)}")
    return of_machine(found, name)


def of_machine(found: Row, name: str) -> Row:
    rows = [row for row in found["rows"] if row["machine"] == name]
    return {"machine": found["machines"][name], "on": name, "rows": rows}
