"""How large a model, for how many steps: what the user asked for, and what follows from it."""

from dataclasses import asdict, dataclass

from _pronounce.model import Size


@dataclass(frozen=True)
class Preset:
    """A model and the way to train it: `shapes` is how many shapes of batch are compiled."""

    size: Size
    batch_size: int
    learning_rate: float
    steps: int
    shapes: int = 5


# With --minutes the time of a step decides how many there are; `steps` is for runs without it.
PRESETS = {
    "tiny": Preset(Size(8, 1, 8), batch_size=16, learning_rate=1e-2, steps=20, shapes=1),
    "small": Preset(Size(64, 2, 128), batch_size=64, learning_rate=8e-3, steps=2600),
    "medium": Preset(Size(96, 3, 192, 0.15), batch_size=64, learning_rate=5e-3, steps=16000),
    "large": Preset(Size(128, 3, 256, 0.25), batch_size=64, learning_rate=4e-3, steps=25000),
}
# Larger models learn more, but only from enough steps: the minutes up to which each is best.
BEST_UP_TO = {"small": 8.0, "medium": 90.0, "large": float("inf")}


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line; a run is resumed only by the same request."""

    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    model: str | None = None
    words: int | None = None

    def preset(self) -> Preset:
        """The model asked for, else the one that the minutes are enough for."""
        minutes = self.minutes or 0.0
        name = self.model or next(name for name, end in BEST_UP_TO.items() if minutes <= end)
        return PRESETS[name]

    def fixed_steps(self) -> int | None:
        """The number of steps; None if the time of a step decides."""
        if self.steps is not None:
            return self.steps
        return None if self.minutes is not None else self.preset().steps

    def described(self) -> str:
        """The options that give this request."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return " ".join(f"--{name} {value}" for name, value in given.items())
