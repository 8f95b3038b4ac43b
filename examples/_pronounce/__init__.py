"""The parts of `examples/pronounce.py`, one idea a file, in the order that the data flows."""

import time

STARTED = time.perf_counter()
