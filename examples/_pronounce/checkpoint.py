"""What is kept on disk, so that a killed run goes on where it was, and `say` has a model."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from _pronounce.errors import UserError

# A kill leaves no torn file under a checkpoint's name; what befalls it later shows in its bytes.
SEAL = "sha256.json"
ADVICE = "Train from scratch with --fresh, or name another folder with --out."


class Checkpoints:
    """The newest checkpoints of a run, one folder a step.

    A folder is written under another name, by Orbax and all processes, then sealed, and renamed
    last: whenever a process is killed, a folder named like a step is whole. One that was harmed
    later is skipped, which is why the checkpoint before the newest is kept.
    """

    def __init__(self, out: Path, keep: int = 2):
        self.folder, self._keep = out.absolute() / "checkpoint", keep

    def save(self, step: int, notes: Any, **trees: Any) -> None:
        """Write a checkpoint, then drop the oldest.

        Args:
          step: its name.
          notes: what is no array, as JSON; each process may have others.
          **trees: of arrays, by name; every process calls with its share of them.
        """
        writing = self.folder / f"{step}.writing"
        try:
            self._clean()
            _wait_for_all("cleaned", step)
            args = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
            with _checkpointer() as checkpointer:
                checkpointer.save(writing, ocp.args.Composite(**args), force=True)
            (writing / f"notes-{jax.process_index()}.json").write_text(json.dumps(notes))
            _wait_for_all("notes", step)
            if jax.process_index() == 0:
                (writing / SEAL).write_text(json.dumps(_digests(writing)))
                # What is newer was skipped, since it is torn.
                self._drop([found for found in self._steps() if found >= step])
                writing.rename(self.folder / str(step))
        # A full disk is an error of many kinds, by what was being written.
        except Exception as error:
            if jax.process_count() == 1:  # others may be writing their part: the next run cleans up
                self._clean()
            raise UserError(self._not_written(step, error)) from error
        self._drop(self._steps()[self._keep :])
        self._clean()
        _wait_for_all("whole", step)

    def newest(self, say: Callable[[str], None] | None = None) -> int | None:
        """The step of the newest whole checkpoint, or None where there is none.

        Args:
          say: is told which were skipped; they are written to stderr where None.

        Raises:
          UserError: if there are checkpoints and none is whole.
        """
        steps = self._steps()
        for step in steps:
            if _is_whole(self.folder / str(step)):
                return step
            text = f"The checkpoint {self.folder / str(step)} is torn: it is skipped."
            say(text) if say else print(text, file=sys.stderr)
        if steps:
            raise UserError(f"All checkpoints in {self.folder} are torn. {ADVICE}")
        return None

    def notes(self, step: int) -> list[Any]:
        """Read the notes of each process that wrote the checkpoint."""
        files = (self.folder / str(step)).glob("notes-*.json")
        found = {int(file.stem.partition("-")[2]): json.loads(file.read_text()) for file in files}
        if not found:
            raise self._unreadable(step, "it has no notes")
        return [found[process] for process in sorted(found)]

    def tree(self, step: int, name: str, like: Any) -> Any:
        """Read arrays onto the devices that `like` lies on, which may be others than before."""
        args = ocp.args.Composite(**{name: ocp.args.StandardRestore(like)})
        try:
            with _checkpointer() as checkpointer:
                return checkpointer.restore(self.folder / str(step), args)[name]
        # Orbax and what it stands on raise errors of many kinds where shapes or formats differ.
        except Exception as error:
            raise self._unreadable(step, error) from error

    def delete(self) -> None:
        """Forget the run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> list[int]:
        """The newest first."""
        names = [path.name for path in self.folder.glob("*")]
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)

    def _drop(self, steps: Sequence[int]) -> None:
        """Take their names from checkpoints, so that none is seen while it is half removed."""
        if jax.process_index() == 0:
            for step in steps:
                (self.folder / str(step)).rename(self.folder / f"{step}.dropped")

    def _clean(self) -> None:
        """Remove what has no step for a name: dropped, or half written when a kill came."""
        if jax.process_index() == 0:
            for path in self.folder.glob("*.*"):
                shutil.rmtree(path)

    def _unreadable(self, step: int, why: object) -> UserError:
        return UserError(
            f"The checkpoint {self.folder / str(step)} cannot be read, perhaps because another "
            f"version wrote it: {why}. {ADVICE}"
        )

    def _not_written(self, step: int, error: Exception) -> str:
        whole = [found for found in self._steps() if _is_whole(self.folder / str(found))]
        kept = f"The one of step {whole[0]} is whole" if whole else "There is none before it"
        return (
            f"Cannot write the checkpoint of step {step} into {self.folder}: {error}. {kept}. "
            "Make room on the disk; the same command then goes on from there."
        )


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler())


def _wait_for_all(what: str, step: int) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"{what} {step}")


def _is_whole(folder: Path) -> bool:
    """Whether each file is as it was written."""
    seal = folder / SEAL
    return seal.exists() and seal.read_text() == json.dumps(_digests(folder))


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SEAL]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
