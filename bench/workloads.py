"""Shapes and lengths: the three shapes of the goals, and workloads as distributions of lengths."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SEED = 1
FILLS = (0.1, 0.36, 0.5, 1.0)
INFERENCE_TIME = 64


class Shape(NamedTuple):
    """The sizes of one layer and its batch."""

    batch: int
    time: int
    feature: int
    hidden: int


# Two that a laptop trains on, and one that fits into its caches.
SHAPES = {
    "A": Shape(64, 256, 128, 256),
    "L": Shape(128, 128, 256, 512),
    "S": Shape(32, 96, 64, 64),
}


def log_normal(batch: int, time: int, fill: float) -> np.ndarray:
    """Log-normal lengths whose longest is `time`, with the wanted share of real steps."""
    if fill == 1.0:
        return np.full(batch, time)
    raw = np.exp(0.65 * np.random.default_rng(SEED).normal(size=batch))
    scales = np.geomspace(0.01, 10, 2000) * time / raw.max()
    candidates = np.clip(np.round(raw * scales[:, None]), 1, time).astype(int)
    candidates[:, np.argmax(raw)] = time
    return candidates[np.argmin(np.abs(candidates.mean(1) - fill * time))]


class Workload(NamedTuple):
    """A batch whose lengths are drawn at random, padded to the longest of them."""

    batch: int
    feature: int
    hidden: int
    draw: Callable[[np.random.Generator, int], np.ndarray]
    least: int
    most: int

    def lengths(
        self, count: int | None = None, draw: np.random.Generator | None = None
    ) -> np.ndarray:
        drawn = self.draw(draw or np.random.default_rng(SEED), count or self.batch)
        return np.clip(np.round(drawn), self.least, self.most).astype(int)


def _speech(draw: np.random.Generator, batch: int) -> np.ndarray:
    """Frames of 30 ms: two thirds of read sentences last about 14.5 s, the rest less."""
    long = draw.random(batch) < 0.68
    seconds = np.where(long, draw.normal(14.5, 1.3, batch), draw.uniform(1.5, 14, batch))
    return seconds / 0.03


# The parameters are fits to published counts, or round numbers where there are none.
WORKLOADS = {
    "imdb": Workload(32, 128, 128, lambda draw, b: draw.lognormal(5.25, 0.65, b), 10, 2494),
    "imdb-512": Workload(32, 128, 128, lambda draw, b: draw.lognormal(5.25, 0.65, b), 10, 512),
    "sst": Workload(64, 128, 128, lambda draw, b: draw.gamma(4.3, 4.5, b), 2, 56),
    "librispeech": Workload(32, 256, 512, _speech, 50, 1200),
    "wmt": Workload(64, 256, 512, lambda draw, b: draw.lognormal(3.2, 0.60, b), 1, 128),
    "episodes": Workload(64, 64, 256, lambda draw, b: draw.exponential(100, b), 1, 1000),
    "uniform": Workload(64, 128, 256, lambda draw, b: draw.uniform(1, 256, b), 1, 256),
    "histories": Workload(64, 64, 128, lambda draw, b: draw.lognormal(3.5, 1.2, b), 1, 1000),
}
