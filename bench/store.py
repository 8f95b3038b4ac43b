"""Results as JSON in `bench/results`, one line a measurement, with the machine they are from."""

import functools
import json
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

FOLDER = Path(__file__).parent / "results"
LIBRARIES = ("jaxmask", "jax", "jaxlib", "flax", "keras", "torch", "sequence-layers")

Row = dict[str, Any]


@functools.cache
def machine() -> dict[str, str]:
    """What is measured on."""
    return {
        "processor": _processor(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def machine_name(of: dict[str, str] | None = None) -> str:
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


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def save(path: Path, found: Row) -> None:
    """Replace the results of a file."""
    _write(path, {"machine": machine(), **found})


def merge(path: Path, rows: Iterable[Row], key: tuple[str, ...]) -> None:
    """Add rows of this machine to a file, replacing those that have the same key."""
    kept = json.loads(path.read_text()) if path.exists() else {"machines": {}, "rows": []}
    kept["machines"][machine_name()] = {**machine(), "versions": _versions()}
    by_key = {tuple(row[name] for name in key): row for row in [*kept["rows"], *rows]}
    _write(path, {**kept, "rows": [by_key[k] for k in sorted(by_key, key=str)]})


def _write(path: Path, found: Row) -> None:
    def lines(value: Any) -> str:
        if not (isinstance(value, list) and value and isinstance(value[0], dict)):
            return json.dumps(value, allow_nan=False)
        return "[\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in value) + "\n]"

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    items = (f'"{name}": {lines(value)}' for name, value in found.items())
    unfinished.write_text("{\n" + ",\n".join(items) + "\n}\n")
    os.replace(unfinished, path)  # noqa: PTH105


def load(path: Path) -> list[Row]:
    """The rows of all machines; an empty list if there is no file."""
    return json.loads(path.read_text())["rows"] if path.exists() else []


def of_machine(rows: list[Row], name: str | None) -> list[Row]:
    """The rows of the machine named, else of this one, else of the only one."""
    names = sorted({row["machine"] for row in rows})
    if name is None:
        here = machine_name()
        name = here if here in names or len(names) != 1 else names[0]
    return [row for row in rows if row["machine"] == name]
