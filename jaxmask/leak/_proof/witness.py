"""Convict: run the program twice, with different contents of what must not be seen.

A refused claim is only "undecided" until two runs differ. Operations run one at a time, so that XLA
does not hide a product of nan and 0.
"""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmask.leak._barriers import factors
from jaxmask.leak._outputs import is_inexact
from jaxmask.leak._padding import copies
from jaxmask.leak._proof.domain import NONE
from jaxmask.leak._proof.tracing import Traced
from jaxmask.leak._proof.verdict import AT_PADDING, Claim, Run, expanded
from jaxmask.leak._stepwise import Stepwise

MOST_LABELS = 4


class Witness:
    """Runs a traced program on contents of the forbidden inputs."""

    def __init__(self, run: Run, traced: Traced, *, of_gradients: bool):
        self.run, self.traced, self.of_gradients = run, traced, of_gradients
        self._program = Stepwise(traced.closed)

    def of(self, claims: list[Claim]) -> dict[int, str]:
        """For each convicted claim, by its number, what its result depends on."""
        found: dict[int, str] = {}
        for label in self._labels(claims):
            about = [k for k, claim in enumerate(claims) if _has(claim, label)]
            try:
                pending = [k for k in about if k not in found]
                if pending:
                    self._convict(claims, pending, label, found)
            except Exception:  # no witness is found where the program does not run
                return found
        return found

    def _labels(self, claims: list[Claim]) -> list[Any]:
        labels = dict.fromkeys(
            label for claim in claims for label in claim.labels if _has(claim, label)
        )
        return list(labels)[:MOST_LABELS]

    def _convict(
        self, claims: list[Claim], numbers: list[int], label: Any, found: dict[int, str]
    ) -> None:
        baseline = self._results(*self._contents(label, "")[0])
        for name in self._names():
            contents, moderate = self._contents(label, name)
            results = self._results(*contents)
            for number in numbers:
                claim = claims[number]
                got, want = results[claim.place], baseline[claim.place]
                at = _entries(claim, label)
                if claim.what == AT_PADDING:
                    want = np.zeros_like(want)
                    if not moderate:
                        continue
                if (differs := at & ~_equal(want, got)).any() and number not in found:
                    entry = tuple(int(k) for k in np.argwhere(differs)[0])
                    found[number] = f"{name}: at {entry} {want[entry]} becomes {got[entry]}"

    def _names(self) -> list[str]:
        return ["other values"] if self.run.finite else ["other values", "1e30", "nan"]

    def _contents(self, label: Any, name: str) -> tuple[tuple[list[Any], list[Any]], bool]:
        """Inputs and cotangents with something else where the label is."""
        question, inputs = self.run.question, self.run.inputs
        rng = np.random.default_rng(0 if not name else 1)
        x = []
        for index, leaf in enumerate(inputs.x.arrays):
            bits = question.source(index, [label])
            if bits is None:
                x.append(leaf)
                continue
            there = np.broadcast_to(expanded(bits != NONE, leaf.ndim), leaf.shape)
            marks = inputs.marks_of_leaf(index)
            if question.of == "padding" and marks is not None:
                leaf = copies(leaf, marks > 0)
            x.append(np.where(there, _filled(leaf, name, rng), leaf) if name else leaf)
        sent: list[Any] = []
        if self.of_gradients:
            for part in (0, 1):
                for slot, mask in zip(self.traced.slots, self.traced.masks, strict=True):
                    if slot.differentiable:
                        bits = question.cotangent(slot, mask, [label])[part]
                        sent.append(_cotangent(slot, part, bits, name))
        return (x, sent), name in ("", "other values")

    def _results(self, x: list[Any], sent: list[Any]) -> list[np.ndarray]:
        inputs = self.run.inputs
        args = [*inputs.params.arrays, *x, *inputs.masks.marks, *sent]
        return [np.asarray(result) for result in self._program(factors(0), *args)]


def _cotangent(slot: Any, part: int, bits: Any, name: str) -> np.ndarray:
    shape, dtype = slot.array.shape, slot.array.dtype
    drawn = np.random.default_rng(2).uniform(-1, 1, shape).astype(dtype)
    there = np.broadcast_to(np.asarray(bits) != NONE, shape)
    if not name:
        return np.where(there, np.zeros((), dtype), drawn) if part else drawn
    other = _filled(drawn, "other values", np.random.default_rng(3))
    return np.where(there, other, drawn)


def _has(claim: Claim, label: Any) -> bool:
    return label in claim.labels and bool(_entries(claim, label).any())


def _entries(claim: Claim, label: Any) -> np.ndarray:
    """The entries that the label may reach."""
    assert claim.bits is not None
    if claim.labels == ["padding"]:
        return np.asarray(claim.bits != NONE)
    bit = np.uint64(1) << np.uint64(claim.labels.index(label))
    return np.asarray((claim.bits & bit) != NONE)


def _filled(x: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    if name in ("nan", "1e30") and is_inexact(x):
        return np.full_like(x, float(jnp.finfo(x.dtype).max) ** 0.8 if name == "1e30" else np.nan)
    if is_inexact(x):
        return (3 * rng.standard_normal(x.shape)).astype(x.dtype)
    if x.dtype == bool:
        return ~x
    if name == "other values" and x.size:
        return rng.integers(x.min(), x.max(), size=x.shape, dtype=x.dtype, endpoint=True)
    return np.full_like(x, -1 if name == "nan" and x.dtype.kind == "i" else np.iinfo(x.dtype).max)


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    same = a == b
    if is_inexact(a):
        same = same | (np.isnan(a) & np.isnan(b))
    return np.asarray(same)


def refused(claims: list[Claim]) -> Iterator[Claim]:
    """The claims that were not proved."""
    return (claim for claim in claims if not claim.proved)
