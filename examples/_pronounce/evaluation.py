"""How many phonemes, and how many words, the model gets wrong.

The protocol of published work: of the pronunciations that the dictionary lists for a word, the one
nearest to what the model said is the reference.

    phoneme error rate = sum of edit distances to the references / sum of their lengths
    word error rate    = share of words that match none of their pronunciations

Published work on this dictionary: Yao and Zweig, 2015, arXiv:1506.00196; Rao et al., 2015,
doi:10.1109/ICASSP.2015.7178767, whose bidirectional LSTM with CTC is nearest to this one. Their
lists of held-out words, and their release of the dictionary, are others than those used here.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

import jaxmask as jm
from _pronounce import devices
from _pronounce.data import Batch, Batches, Entries, Pronunciation, spell_phonemes
from _pronounce.model import greedy


class Score(NamedTuple):
    """Both error rates, and of how many words."""

    phoneme_error_rate: float
    word_error_rate: float
    words: int


class Said(NamedTuple):
    """What the model said to the words of a batch, and how far that is from what is listed."""

    best: np.ndarray  # [batch, frame]: the class of each frame
    says: np.ndarray  # [batch, frame]: a mask with holes, True where a frame says something
    distance: np.ndarray  # [batch]: edits from what was said to the phonemes of the batch

    def phonemes(self, row: int) -> Pronunciation:
        """What was said to the word of a row."""
        return spell_phonemes(self.best[row][self.says[row]])


class Evaluator:
    """A model that speaks, compiled once for each shape of batch."""

    def __init__(self, graphdef: nnx.GraphDef, mesh: Mesh, *, spread: bool = False):
        self.mesh = mesh
        rows = PartitionSpec(devices.ROWS)
        say = devices.on_each_device(_say(graphdef), mesh, out=rows, spread=spread)
        self._say = jax.jit(say)

    def say(self, params: nnx.State, batch: Batch) -> Said:
        """Let the model say the words of a batch."""
        said = self._say(devices.shard_rows(batch, self.mesh), params)
        return Said(*(np.asarray(part)[: len(batch.indices)] for part in said))

    def score(self, params: nnx.State, entries: Entries, batches: Batches) -> Score:
        """Error rates over all entries."""
        distances = np.zeros(len(entries), int)
        for batch in batches.epoch(0):
            filled = batch.indices >= 0
            distances[batch.indices[filled]] = self.say(params, batch).distance[filled]
        lengths = [len(phonemes) for phonemes in entries.phonemes]
        return error_rates(entries.words, distances.tolist(), lengths)


def _say(graphdef: nnx.GraphDef) -> Callable[..., tuple[jax.Array, ...]]:
    def say(batch: Batch, params: nnx.State) -> tuple[jax.Array, ...]:
        model = nnx.merge(graphdef, params)
        model.eval()
        best, says = greedy(*model(batch.letters, batch.mask))
        # What is said lies scattered over the frames: the mask with its holes is enough to read it.
        listed = batch.phonemes, batch.phoneme_mask
        distance, _ = jm.metrics.edit_distance(best, says, *listed)
        return best, says, distance

    return say


def error_rates(words: Sequence[str], distances: Sequence[int], lengths: Sequence[int]) -> Score:
    """Both error rates from the edit distance of each entry and the length of its reference."""
    nearest: dict[str, tuple[int, int]] = {}
    for word, distance, length in zip(words, distances, lengths, strict=True):
        if word not in nearest or distance < nearest[word][0]:
            nearest[word] = (distance, length)
    edits, total = (sum(column) for column in zip(*nearest.values(), strict=True))
    wrong = sum(distance > 0 for distance, _ in nearest.values())
    return Score(edits / total, wrong / len(nearest), len(nearest))
