"""`python -m bench SUITE [options]`: run a suite of benchmarks."""

import sys

from bench import suite


def main() -> None:
    name, *rest = sys.argv[1:] or ["--help"]
    if name not in suite.NAMES:
        raise SystemExit(f"usage: python -m bench [{' | '.join(suite.NAMES)}] [options]")
    suite.main(name, rest)


if __name__ == "__main__":
    main()
