"""Code of others, and models as people write them, as subjects of `leak.check`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MASK = np.arange(6) < np.array([[6], [4], [2]])
X = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
IDS = np.random.default_rng(1).integers(1, 9, MASK.shape)


@dataclass(frozen=True)
class Subject:
    """A function to be checked.

    Attributes:
      name: for the table.
      group: the library.
      make: gives `fn`, `x` and `params`.
      poison: as in `leak.check`.
    """

    name: str
    group: str
    make: Callable[[], tuple[Any, Any, Any]]
    poison: str = "unproved"
