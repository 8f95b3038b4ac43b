"""Benchmarks: each compares outputs and gradients with every rival before it times anything.

    python -m pip install -e ".[bench]"
    python -m bench recurrent    LSTM and GRU against Flax, Keras, SequenceLayers and PyTorch
    python -m bench growth       how time grows with padding, time, batch and width
    python -m bench train        training padded at random, bucketed and packed, end to end
    python -m bench serve        requests of random length, with buckets and without
    python -m bench packing      pipelines alone, and how full they make batches
    python -m bench chart        the chart of the README, from the results of `recurrent`
    python -m bench goals        the goals beside what was measured, from the same results

`python -m bench --help` names all suites, and `python -m bench SUITE --help` tells about one;
`--table` measures nothing and writes the table of the stored results again. Results are JSON in
`bench/results`, with the name of the machine in them.
"""
