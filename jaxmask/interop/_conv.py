"""Windows of other libraries' convolutions as those of `jaxmask.conv`."""

from dataclasses import dataclass
from typing import Any

from jaxmask import nn


@dataclass(frozen=True)
class Windows:
    """A `padding` of `Conv1D`, and how many windows to drop at both ends of each row."""

    padding: str
    crop: tuple[int, int] = (0, 0)

    @property
    def words(self) -> str:
        """What a convolution becomes."""
        return f"jm.nn.Conv1D, padding {self.padding!r}" + ", and jm.nn.Crop" * any(self.crop)

    def around(self, layer: nn.Conv1D) -> Any:
        """The convolution, and the crop after it."""
        return nn.Sequential(layer, nn.Crop(self.crop)) if any(self.crop) else layer


def windows(low: int, high: int, reach: int, stride: int) -> Windows | None:
    """The same windows over a row with `low` zeros before it and `high` after; None if there are
    none.

    `reach`: steps from the first to the last of a window. Windows that jaxmask has by no name of
    its own are some of those of "full", which begin `reach` steps before the row.
    """
    named = {(0, 0): "valid", (reach, 0): "causal", (0, reach): "reverse_causal"}
    if 2 * low == 2 * high == reach:
        return Windows("same")
    if (low, high) in named:
        return Windows(named[low, high])
    left, right = reach - low, reach - high
    if min(low, high, left, right) < 0 or left % stride or right % stride:
        return None
    return Windows("full", (left // stride, right // stride))
