"""What is asked: which inputs may not reach which results.

Each question has labels (cuts in time, rows, segments), and each label a bit. The bit marks the
inputs that are meant, and a result must not have it where the label forbids it.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxmask._types import Segments
from jaxmask.leak._outputs import Slot
from jaxmask.leak._proof.causes import RAW
from jaxmask.leak._proof.domain import BITS, NONE, Value
from jaxmask.leak._proof.inputs import Inputs

ALL = BITS(2**64 - 1)
OF_X, OF_COTANGENTS = (BITS(1 << k) for k in range(RAW))


@dataclass
class Question:
    """Does padding reach a real entry? `unasked` has results that are not asked about, and why."""

    inputs: Inputs
    unasked: dict[str, str] = field(default_factory=dict)
    of: str = "padding"
    of_gradients: bool = True

    def labels(self) -> list[Any]:
        """The things that must not be seen; each gets a bit."""
        return ["padding"]

    def source(self, index: int, labels: list[Any]) -> np.ndarray | None:
        """The bits of an array of `x`, in the shape of its mask."""
        marks = self.inputs.marks_of_leaf(index)
        return None if marks is None else np.where(marks > 0, NONE, OF_X)

    def cotangent(self, slot: Slot, mask: Value | None, labels: list[Any]) -> tuple[Any, Any]:
        """The bits of the cotangent at real entries and at padding."""
        return NONE, OF_COTANGENTS

    def forbidden(self, slot: Slot, mask: Value | None, labels: list[Any]) -> np.ndarray | None:
        """The bits that no entry may have, to be broadcast over the last axes; None: not asked."""
        if mask is None:
            return np.asarray(ALL)
        return np.where(mask.where_known & ~_positive(mask), NONE, ALL)

    def forbidden_in_gradient(self, index: int, labels: list[Any]) -> np.ndarray | None:
        """The same for the gradient in an array of `x`; all at padding is asked apart."""
        marks = self.inputs.marks_of_leaf(index)
        return np.asarray(ALL) if marks is None else np.where(marks > 0, ALL, NONE)

    @property
    def of_params(self) -> bool:
        """Whether gradients in parameters are asked about."""
        return True

    def not_asked(self, slot: Slot, why: str) -> None:
        """Note that nothing is asked about a result."""
        self.unasked[slot.where] = why


def _positive(mask: Value) -> np.ndarray:
    return np.broadcast_to(False, mask.shape) if mask.value is None else mask.value > 0


def _bits(labels: list[Any]) -> np.ndarray:
    return BITS(1) << np.arange(len(labels), dtype=BITS)


class Rows(Question):
    """Does a row see another?"""

    def labels(self) -> list[Any]:
        return list(range(self.inputs.batch))

    def _of_rows(self, labels: list[Any], count: int, batch: int) -> np.ndarray:
        """For each of `count` leading entries, the bit of its row."""
        of_row = np.zeros(batch, BITS)
        of_row[labels] = _bits(labels)
        return np.repeat(of_row, count // batch)

    def source(self, index: int, labels: list[Any]) -> np.ndarray | None:
        marks = self.inputs.marks_of_leaf(index)
        if marks is None:
            return None
        bits = self._of_rows(labels, len(marks), self.inputs.batch)
        return np.broadcast_to(bits.reshape(-1, *[1] * (marks.ndim - 1)), marks.shape)

    def _attributed(self, slot: Slot) -> bool:
        shape, batch = slot.array.shape, self.inputs.batch
        if slot.mask is None:
            return bool(shape and shape[0] == batch)
        return bool(shape[0] and shape[0] % batch == 0)

    def cotangent(self, slot: Slot, mask: Value | None, labels: list[Any]) -> tuple[Any, Any]:
        shape = slot.array.shape
        if not self._attributed(slot):
            return NONE, NONE
        bits = self._of_rows(labels, shape[0], self.inputs.batch)
        bits = bits.reshape(-1, *[1] * (len(shape) - 1))
        return bits, bits

    def forbidden(self, slot: Slot, mask: Value | None, labels: list[Any]) -> np.ndarray | None:
        if not self._attributed(slot):
            self.not_asked(slot, "no axis of it is the batch")
            return None
        asked = np.bitwise_or.reduce(_bits(labels))
        own = self._of_rows(labels, slot.array.shape[0], self.inputs.batch)
        return (asked & ~own).reshape(-1, *[1] * (len(slot.array.shape) - 1))

    def forbidden_in_gradient(self, index: int, labels: list[Any]) -> np.ndarray | None:
        bits = self.source(index, labels)
        return None if bits is None else np.bitwise_or.reduce(_bits(labels)) & ~bits

    @property
    def of_params(self) -> bool:
        return False


class Segmented(Question):
    """Does a packed sequence see another?"""

    def labels(self) -> list[Any]:
        return list(range(1, self._most + 1))

    @property
    def _most(self) -> int:
        return max((most or 0) for most in self.inputs.masks.max_segments)

    def _of_ids(self, ids: np.ndarray, labels: list[Any]) -> np.ndarray:
        table = np.zeros(self._most + 1, BITS)
        table[labels] = _bits(labels)
        return table[np.clip(ids, 0, self._most)]

    def source(self, index: int, labels: list[Any]) -> np.ndarray | None:
        marks = self.inputs.marks_of_leaf(index)
        return None if marks is None else self._of_ids(marks, labels)

    def _of_slot(self, slot: Slot, mask: Value | None, labels: list[Any]) -> np.ndarray | None:
        """For each entry along the leading axes, the bit of its sequence."""
        most, shape = self._most, slot.array.shape
        if isinstance(slot.mask, Segments):
            if mask is None or mask.value is None or not mask.all_known:
                return None
            return self._of_ids(np.asarray(mask.value), labels)
        if slot.mask is not None and shape[0] == self.inputs.batch * most:
            return self._of_ids(np.tile(np.arange(1, most + 1), self.inputs.batch), labels)
        return None

    def cotangent(self, slot: Slot, mask: Value | None, labels: list[Any]) -> tuple[Any, Any]:
        bits = self._of_slot(slot, mask, labels)
        if bits is None:
            return NONE, NONE
        bits = bits.reshape(bits.shape + (1,) * (len(slot.array.shape) - bits.ndim))
        return bits, NONE

    def forbidden(self, slot: Slot, mask: Value | None, labels: list[Any]) -> np.ndarray | None:
        own = self._of_slot(slot, mask, labels)
        if own is None:
            if slot.what != "mask":
                self.not_asked(slot, "it does not say which sequence an entry belongs to")
            return None
        real = own if len(labels) == self._most else ALL  # padding belongs to no sequence
        asked = np.bitwise_or.reduce(_bits(labels))
        return np.where(real != NONE, asked & ~own, NONE)

    def forbidden_in_gradient(self, index: int, labels: list[Any]) -> np.ndarray | None:
        marks, own = self.inputs.marks_of_leaf(index), self.source(index, labels)
        if own is None or marks is None:
            return None
        return np.where(marks > 0, np.bitwise_or.reduce(_bits(labels)) & ~own, NONE)

    @property
    def of_params(self) -> bool:
        return False


class Time(Question):
    """Does a step see a later one?"""

    def labels(self) -> list[Any]:
        return list(range(self._time - 1))

    @property
    def _time(self) -> int:
        return int(next(m.shape[1] for m in self.inputs.masks.marks if m.ndim == 2))

    def source(self, index: int, labels: list[Any]) -> np.ndarray | None:
        marks = self.inputs.marks_of_leaf(index)
        if marks is None or marks.ndim != 2 or marks.shape[1] != self._time:
            return None
        later = np.arange(self._time)[:, None] > np.asarray(labels)
        bits = np.bitwise_or.reduce(np.where(later, _bits(labels), NONE), axis=1)
        return np.broadcast_to(bits, marks.shape)

    def forbidden(self, slot: Slot, mask: Value | None, labels: list[Any]) -> np.ndarray | None:
        shape, time = slot.array.shape, self._time
        if len(shape) < 2 or not shape[1] or not _even(shape[1], time):
            self.not_asked(slot, "its second axis is no time axis")
            return None
        if slot.mask is None and (shape[0] != self.inputs.batch or shape[1] != time):
            self.not_asked(slot, "its second axis is no time axis")
            return None
        steps = np.arange(shape[1])
        last = steps * time // shape[1] if shape[1] >= time else _last(steps, time, shape[1])
        ahead = np.asarray(labels) >= last[:, None]
        bits = np.bitwise_or.reduce(np.where(ahead, _bits(labels), NONE), axis=1)
        bits = bits.reshape(-1, *[1] * (len(shape) - 2))
        if mask is None:
            return bits
        real = ~(mask.where_known & ~_positive(mask))
        real = real.reshape(real.shape + (1,) * (len(shape) - real.ndim))
        return np.where(real, bits, NONE)

    @property
    def of_params(self) -> bool:
        return False


def _even(steps: int, time: int) -> bool:
    return steps % time == 0 or abs(time / steps - round(time / steps)) < 1


def _last(steps: np.ndarray, time: int, count: int) -> np.ndarray:
    """The last input step of each output step, of which there are fewer."""
    stride = -(-time // count)
    return np.minimum((steps + 1) * stride - 1, time - 1)


QUESTIONS: dict[str, type[Question]] = {
    "padding": Question,
    "rows": Rows,
    "segments": Segmented,
    "time": Time,
}
