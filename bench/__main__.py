"""`python -m bench SUITE [options]`: run a suite of benchmarks."""

import sys

from bench import suite

if __name__ == "__main__":
    suite.main(sys.argv[1:])
