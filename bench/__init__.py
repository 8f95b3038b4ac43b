"""Benchmarks: each compares outputs and gradients with every rival before it times anything.

    python -m pip install -e ".[bench]"
    python -m bench              names all suites
    python -m bench recurrent    LSTM and GRU against Flax, Keras, SequenceLayers and PyTorch
    python -m bench goals        their goals beside what was measured

`python -m bench SUITE --help` tells about one; `--table` measures nothing and writes the table and
the chart of the stored results again. Results are JSON in `bench/results`, with the name of the
machine in them; `--out` names another file, and pages of the docs are then left as they are.
"""
