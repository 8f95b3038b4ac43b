"""What is noted of a run beside its arrays."""

from dataclasses import dataclass, field
from typing import Any


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
