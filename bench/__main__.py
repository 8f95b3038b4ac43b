"""`python -m bench [suite] [options]`: run a suite of benchmarks, `recurrent` unless named."""

import importlib
import pkgutil
import sys
from pathlib import Path

import bench

INNER = {"__main__", "rivals"}


def suites() -> list[str]:
    """Modules of this package that can be run."""
    names = [module.name for module in pkgutil.iter_modules(bench.__path__)]
    here = Path(bench.__path__[0])
    runnable = (name for name in names if name not in INNER)
    return [name for name in runnable if "def main(" in (here / f"{name}.py").read_text()]


def main() -> None:
    name, *rest = sys.argv[1:] or ["recurrent"]
    if name.startswith("-") and name not in ("-h", "--help"):
        name, rest = "recurrent", [name, *rest]
    if name in ("-h", "--help") or name not in suites():
        raise SystemExit(f"usage: python -m bench [{' | '.join(suites())}] [options]")
    sys.argv = [f"python -m bench {name}", *rest]
    importlib.import_module(f"bench.{name}").main()


if __name__ == "__main__":
    main()
