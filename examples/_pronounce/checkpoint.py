"""What is kept on disk, so that a killed run goes on where it was, and `say` has a model."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from _pronounce.errors import UserError

# What Orbax writes appears whole or not at all, but what befalls it later shows only in its bytes.
SEAL = "sha256.json"


@dataclass
class Notes:
    """Everything about a run that is not an array."""

    request: dict[str, Any]
    steps: int = 0  # to train for, once that is known
    losses: list[float] = field(default_factory=list)  # one a step
    development: list[list[float]] = field(default_factory=list)  # step, phoneme error rate
    seconds: float = 0.0
    training_seconds: float = 0.0
    letters: int = 0

    def letters_per_second(self) -> float:
        """Real letters trained on; compiling, evaluating and writing are not in the time."""
        return self.letters / max(self.training_seconds, 1e-9)


class Checkpoints:
    """The newest checkpoint of a run, written whole or not at all.

    Each holds the parameters, the state of the optimiser and `Notes`; the step is its name. The
    position in the data needs no place of its own: batches depend on seed and step alone.
    """

    def __init__(self, out: Path):
        self.folder = out.absolute() / "checkpoint"

    def save(self, step: int, params: Any, optimizer_state: Any, notes: Notes) -> None:
        """Write a checkpoint and drop the one before it."""
        with self._manager() as manager:
            args = ocp.args.Composite(
                params=ocp.args.StandardSave(params),
                optimizer=ocp.args.StandardSave(optimizer_state),
                notes=ocp.args.JsonSave(asdict(notes)),
            )
            manager.save(step, args=args)
        self._seal(step).write_text(json.dumps(self._digests(step)))

    def newest(self) -> int | None:
        """The step of the newest checkpoint, or None where there is none."""
        if not self.folder.is_dir():
            return None
        with self._manager() as manager:
            return manager.latest_step()

    def notes(self, step: int) -> Notes:
        """Read what is said of the run."""
        return Notes(**self._restore(step, notes=ocp.args.JsonRestore())["notes"])

    def params(self, step: int, like: Any) -> Any:
        """Read the parameters, onto the devices that `like` lies on."""
        return self._restore(step, params=ocp.args.StandardRestore(like))["params"]

    def optimizer_state(self, step: int, like: Any) -> Any:
        """Read the state of the optimiser, likewise."""
        return self._restore(step, optimizer=ocp.args.StandardRestore(like))["optimizer"]

    def delete(self) -> None:
        """Forget the run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _restore(self, step: int, **items: Any) -> Any:
        advice = "Train anew with --fresh, or name another folder with --out."
        if not self._is_whole(step):
            raise UserError(f"The checkpoint {self.folder / str(step)} is torn. {advice}")
        try:
            with self._manager() as manager:
                return manager.restore(step, args=ocp.args.Composite(**items))
        # Orbax and what it stands on raise errors of many kinds where shapes or formats differ.
        except Exception as error:
            raise UserError(
                f"The checkpoint {self.folder / str(step)} cannot be read, perhaps because another "
                f"version wrote it: {error}. {advice}"
            ) from error

    def _is_whole(self, step: int) -> bool:
        """Whether each file is as it was written; so it is if a kill left no time for the seal."""
        seal = self._seal(step)
        return not seal.exists() or seal.read_text() == json.dumps(self._digests(step))

    def _seal(self, step: int) -> Path:
        return self.folder / str(step) / SEAL

    def _digests(self, step: int) -> dict[str, str]:
        folder = self.folder / str(step)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SEAL]
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False, create=True
        )
        return ocp.CheckpointManager(self.folder, options=options)
