"""Say words with a trained model."""

from collections.abc import Iterator, Sequence

import numpy as np
from flax import nnx

import jaxmask as jm
from _pronounce import devices
from _pronounce.checkpoint import Checkpoints
from _pronounce.data import Batch, Pronunciation, letter_ids
from _pronounce.errors import UserError
from _pronounce.evaluation import Evaluator
from _pronounce.model import outline
from _pronounce.settings import Request

# However many words there are and however long: four shapes, so at most four compilations.
BATCH_SIZE = 8
BOUNDARIES = (8, 16, 32, 64)


def say(words: Sequence[str], checkpoints: Checkpoints) -> list[Pronunciation]:
    """What the model of the newest checkpoint says to each word."""
    spelled = [_short_enough(word) for word in words]
    evaluator, params = _load(checkpoints)
    pronunciations: list[Pronunciation] = [()] * len(words)
    for batch in _batches(spelled):
        said = evaluator.say(params, batch)
        for row, index in enumerate(batch.indices):
            if index >= 0:
                pronunciations[index] = said.phonemes(row)
    return pronunciations


def _load(checkpoints: Checkpoints) -> tuple[Evaluator, nnx.State]:
    step = checkpoints.newest()
    if step is None:
        raise UserError(
            f"There is no checkpoint in {checkpoints.folder}: train a model first, or name the "
            "folder of one with --out."
        )
    request = Request(**checkpoints.notes(step)[0]["request"])
    graphdef, shapes = outline(request.preset().size)
    mesh = devices.all_devices()
    params = checkpoints.tree(step, "params", devices.lay_out(shapes, mesh))
    return Evaluator(graphdef, mesh), params


def _short_enough(word: str) -> list[int]:
    ids = letter_ids(word)
    if len(ids) > BOUNDARIES[-1]:
        raise UserError(f"{word!r} has {len(ids)} letters: at most {BOUNDARIES[-1]} can be said.")
    return ids


def _batches(spelled: Sequence[Sequence[int]]) -> Iterator[Batch]:
    nothing = np.zeros((BATCH_SIZE, 1), np.int32), np.zeros((BATCH_SIZE, 1), bool)
    buckets = jm.bucket_batches(spelled, BATCH_SIZE, boundaries=BOUNDARIES, dtype=np.int32)
    for letters, mask, indices in buckets:
        yield Batch(letters, mask, *nothing, indices)
