"""Kill a training job at several moments, let it go on each time, and tell in JSON how it ended.

    python -m tests.killed FOLDER [RANDOM_KILLS] [SEED]

Each life of the job is a fork of one process that has imported everything and computed nothing.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from tests import job

from _pronounce import checkpoint  # isort: skip  # `job` knows where it is


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_step(folder):
    return lambda step: die() if step == job.EVERY + 2 else None


def while_writing(folder):
    """As soon as there is a file in the folder that is being written."""

    def watch():
        while not any(path.is_file() for path in folder.glob("*.writing*/**/*")):
            time.sleep(1e-4)
        die()

    return first_step(lambda: threading.Thread(target=watch, daemon=True).start())


def before_sealing(folder):
    def replace():
        checkpoint._digests = lambda folder: die()

    return first_step(replace)


def while_dropping(folder):
    remove = shutil.rmtree

    def remove_or_die(path, *arguments, **options):
        if Path(path).suffix == ".dropped":
            (Path(path) / checkpoint.SEAL).unlink()
            die()
        remove(path, *arguments, **options)

    def replace():
        shutil.rmtree = remove_or_die

    return first_step(replace)


def first_step(act):
    steps = iter([act])
    return lambda step: next(steps, lambda: None)()


def never(folder):
    return lambda step: None


MOMENTS = (in_a_step, while_writing, before_sealing, while_dropping)


def live(out, moment, kill_after=None):
    """Train in a fork, kill it perhaps, and say how it ended and what it left."""
    ended = in_a_fork(lambda: run(out, moment), out / "log", kill_after)
    left = sorted(path.name for path in (out / "checkpoint").glob("*"))
    return {"moment": moment.__name__, "left": left, **ended}


def in_a_fork(run, log, kill_after=None):
    """Run in a child that writes into `log` and ends as a program does, and say how it ended."""
    start = time.monotonic()
    child = os.fork()
    if not child:
        log.parent.mkdir(parents=True, exist_ok=True)
        written = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(written, 1)
        os.dup2(written, 2)
        try:
            run()
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        sys.exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"status": status, "seconds": round(time.monotonic() - start, 2)}


def run(out, moment):
    checkpoints = checkpoint.Checkpoints(out)
    state, losses = job.train(
        job.mesh_of(1), [0, 1], checkpoints, before_step=moment(checkpoints.folder)
    )
    (out / "end.json").write_text(json.dumps({"losses": losses, "bits": bits(state)}))


def bits(tree):
    """A digest of each array of a tree."""
    arrays = job.arrays(tree).items()
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays}


def tear(out):
    """Cut the largest file of the newest checkpoint in two."""
    newest = max((out / "checkpoint").glob("[0-9]*[0-9]"), key=lambda path: int(path.name))
    files = [path for path in newest.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    return newest.name


def main(folder, random_kills=0, seed=0):
    unbroken, broken, at_random = (folder / name for name in ("unbroken", "broken", "random"))
    lives = [live(unbroken, never)]
    assert lives[0]["status"] == 0, (unbroken / "log").read_text()
    lives += [live(broken, moment) for moment in MOMENTS]
    torn = tear(broken)
    lives.append(live(broken, never))
    draw = random.Random(seed)
    for _ in range(random_kills):
        lives.append(live(at_random, never, draw.uniform(0.3, 1.1) * lives[0]["seconds"]))
        if lives[-1]["status"] == 0:  # it was faster than its killer: from the beginning
            shutil.rmtree(at_random / "checkpoint")
    if random_kills:
        lives.append(live(at_random, never))
    ends = [json.loads(end.read_text()) for end in sorted(folder.glob("*/end.json"))]
    log = (broken / "log").read_text()
    print(json.dumps({"lives": lives, "ends": ends, "torn": torn, "log": log}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
