"""Results as JSON in `bench/results`, one line a measurement, with the machine they are from."""

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


def path(name: str) -> Path:
    """Where results of a suite are; of the recurrent layers, those of each kind of device apart."""
    kind = jax.default_backend() if name == "recurrent" else "cpu"
    return FOLDER / (f"{name}.json" if kind == "cpu" else f"{name}-{kind}.json")


def save(path: Path, found: Row) -> None:
    """Replace the results of a file."""
    _write(path, {"machine": machine(), **found})


def merge(path: Path, row: Row, key: tuple[str, ...]) -> None:
    """Add a row of this machine to a file; it replaces the one that has the same key, if any."""
    name = machine_name()
    kept = read(path) if path.exists() else {"machines": {}, "rows": []}
    kept["machines"][name] = {**machine(), "versions": _versions()}
    key = ("machine", *key)
    rows = {tuple(map(str, map(one.get, key))): one for one in kept["rows"]}
    row = {"machine": name, **row}
    rows[tuple(map(str, map(row.get, key)))] = row
    _write(path, {**kept, "rows": [rows[k] for k in sorted(rows)]})


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


def read(path: Path) -> Row:
    return json.loads(path.read_text())


def load(path: Path, name: str | None = None) -> Row:
    """What was measured on the machine named, else on this one, else on the only one."""
    found = read(path)
    if "rows" not in found or "machines" not in found:
        return found
    names = sorted(found["machines"])
    if name is None:
        name = machine_name() if machine_name() in names or len(names) != 1 else names[0]
    if name not in names:
        raise SystemExit(f"{path} has no results of {name}, but of {', '.join(names)}")
    rows = [row for row in found["rows"] if row["machine"] == name]
    return {"machine": found["machines"][name], "rows": rows}
