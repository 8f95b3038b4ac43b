"""One picture of a run: how it learned, and one batch with its mask and what the model said."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from _pronounce.data import BLANK, LETTERS, Batch, Entries, spell_phonemes
from _pronounce.evaluation import Said

ROWS = 16
PADDING, REAL, SAYS, WRONG = "#d9d9d9", "#ffffff", "#bfe3c0", "#c44e52"


def draw(
    path: Path,
    losses: Sequence[float],
    development: Sequence[Sequence[float]],
    entries: Entries,
    batch: Batch,
    said: Said,
) -> None:
    """Write the picture.

    Args:
      path: the file.
      losses: of each step.
      development: pairs of a step and the phoneme error rate on development words.
      entries: some words and what is listed for them.
      batch: the same words as a batch.
      said: what the model said to them.
    """
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(16, 10), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=[1, 1.6])
        _curve(above, losses, development)
        _batch(below, entries, batch, said)
        figure.savefig(path, dpi=110)


def _curve(axes: Axes, losses: Sequence[float], development: Sequence[Sequence[float]]) -> None:
    window = np.ones(min(25, len(losses)))
    mean = np.convolve(losses, window / len(window), mode="valid")
    axes.plot(np.arange(len(mean)) + len(window), mean, color="#4c72b0")
    axes.set(yscale="log", xlabel="step", title="Learning curve")
    axes.set_ylabel("CTC loss, nats a word", color="#4c72b0")
    right = axes.twinx()
    steps, rates = np.array(development).T
    right.plot(steps, 100 * rates, "o-", color="#c44e52")
    right.set_ylabel("phoneme error rate, development words, %", color="#c44e52")
    right.set_ylim(bottom=0)


def _batch(axes: Axes, entries: Entries, batch: Batch, said: Said) -> None:
    """Letters on the left and frames on the right, in one grid; padding is grey."""
    time, frames = batch.mask.shape[1], said.best.shape[1]
    for row, index in enumerate(batch.indices):
        real = batch.mask[row]
        for step in range(time):
            text = LETTERS[batch.letters[row, step]] if real[step] else ""
            _cell(axes, step, row, REAL if real[step] else PADDING, text)
        for frame in range(frames):
            is_real = real[frame * time // frames]
            _cell(axes, time + 1 + frame, row, *_frame(said, row, frame, is_real))
        correct = said.distance[row] == 0
        text = " ".join(said.phonemes(row))
        if not correct:
            text += f"   (listed: {' '.join(spell_phonemes(entries.phonemes[index]))})"
        place = (time + frames + 1.5, row + 0.5)
        axes.text(*place, text, va="center", color="black" if correct else WRONG)
    rows, columns = len(batch.indices), time + frames + 24
    axes.set(xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[], frame_on=False)
    axes.set_title(
        "Some held-out words. Left: letters and their mask (grey: padding). Right: two frames a "
        "letter and their mask; the model speaks in the green ones, and is silent (·) in others"
    )


def _frame(said: Said, row: int, frame: int, is_real: bool) -> tuple[str, str]:
    if not is_real:
        return PADDING, ""
    best = said.best[row, frame]
    if said.says[row, frame]:
        return SAYS, spell_phonemes([best])[0]
    return REAL, "·" if best == BLANK else ""


def _cell(axes: Axes, column: float, row: float, colour: str, text: str) -> None:
    box = Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="#999999", lw=0.5)
    axes.add_patch(box)
    axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7)
