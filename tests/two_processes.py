"""One of two processes that train `tests/job.py` together; its state is left in a folder.

python -m tests.two_processes FOLDER HOST:PORT PROCESS
"""

import functools
import operator
import pickle
import sys
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

import jaxmask as jm
from tests import job

from _pronounce.checkpoint import Checkpoints  # isort: skip  # `job` knows where it is


def of_all(metric):
    """A metric that each process updated by itself, merged on the hosts."""
    every = multihost_utils.process_allgather(metric)
    parts = (jax.tree.map(operator.itemgetter(k), every) for k in range(jax.process_count()))
    return functools.reduce(lambda one, other: one.merge(other), parts)


def step_of_nothing(mesh, state):
    """The state after a step in which no process has a real row."""
    graph, _ = job.start(mesh)
    return job.stepper(graph, mesh)(state, job.deal([job.nothing()], mesh))


def main(folder, address, process):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, 2, process)
    mesh = job.mesh_of()
    # The second process has fewer batches, and ends with empty ones.
    state, losses = job.train(mesh, [process], Checkpoints(folder))
    after, loss, count = step_of_nothing(mesh, state)
    labels = np.array([record["label"] for record in job.records(process)])
    mean = of_all(jm.metrics.Mean.empty().update(labels.astype(np.float32), None))
    found = {
        "devices": (jax.local_device_count(), jax.device_count()),
        "losses": losses,
        "state": job.arrays(state),
        "after_nothing": (job.arrays(after), float(loss), float(count)),
        "mean_label": float(mean.compute()),
    }
    (folder / f"{process}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
