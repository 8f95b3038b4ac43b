"""One of two processes that train `tests/job.py` together, in several lives.

    python -m tests.two_processes FOLDER PROCESS HOST:PORT...

A pickle in the folder tells how each life ended, and what the first one found. There is an address
for each life: one without a trouble, and where there are three more, one whose second process
meets a full disk, one whose second process is killed, and one that goes on from what is left. With
two more the first process is in trouble. Each life is a fork of one process that has imported
everything and computed nothing.
"""

import functools
import operator
import pickle
import resource
import sys
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

import jaxmask as jm
from tests import job, killed

from _pronounce.checkpoint import Checkpoints  # isort: skip  # `job` knows where it is

SECONDS = {"heartbeat_timeout_seconds": 6, "shutdown_timeout_seconds": 4}  # to give a process up


def of_all(metric):
    """A metric that each process updated by itself, merged on the hosts."""
    every = multihost_utils.process_allgather(metric)
    parts = (jax.tree.map(operator.itemgetter(k), every) for k in range(jax.process_count()))
    return functools.reduce(lambda one, other: one.merge(other), parts)


def step_of_nothing(mesh, state):
    """The state after a step in which no process has a real row."""
    graph, _ = job.start(mesh)
    return job.stepper(graph, mesh)(state, job.deal([job.nothing()], mesh))


def join(address, process):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, 2, process, **SECONDS)
    return job.mesh_of()


def whole(folder, address, process):
    """A life without a trouble, and what else is to be seen there."""
    mesh = join(address, process)
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


def no_room_at(step):
    save = Checkpoints.save

    def save_or_fail(checkpoints, number, *arguments, **trees):
        if number < step:
            return save(checkpoints, number, *arguments, **trees)
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited[1]))  # no file may grow
        try:
            return save(checkpoints, number, *arguments, **trees)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)

    Checkpoints.save = save_or_fail


def broken(folder, address, process, trouble):
    """A life in which this process may meet one."""
    mesh, before_step = join(address, process), lambda step: None
    if trouble == "no room":
        no_room_at(2 * job.EVERY)
    if trouble == "killed":
        before_step = lambda step: killed.die() if step == 2 * job.EVERY + 2 else None  # noqa: E731
    state, losses = job.train(mesh, [process], Checkpoints(folder), before_step=before_step)
    (folder / f"{process}.pickle").write_bytes(pickle.dumps((job.arrays(state), losses)))


TROUBLES = [(1, "no room"), (1, "killed"), (0, "killed"), (0, "no room")]


def main(folder, process, first, *addresses):
    ends = [killed.in_a_fork(lambda: whole(folder, first, process), folder / f"log-{process}")]
    if addresses:
        ends += lives_in_trouble(folder, process, *addresses)
    (folder / f"ends-{process}.pickle").write_bytes(pickle.dumps(ends))


def lives_in_trouble(folder, process, *addresses):
    *others, last = addresses
    ends = []
    out = folder / "broken"
    troubles = [*TROUBLES[: len(others)], (None, "none")]
    for life, (address, (who, trouble)) in enumerate(zip([*others, last], troubles, strict=True)):
        mine = trouble if who == process else "none"
        run = functools.partial(broken, out, address, process, mine)
        log = out / f"log-{life}-{process}"
        ended = killed.in_a_fork(run, log)
        ends.append({"who": who, "trouble": trouble, "log": log.read_text(), **ended})
    return ends


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
