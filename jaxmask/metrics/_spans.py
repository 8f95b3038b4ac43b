"""F1 of spans, the entities that a row of tags names."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _mask_ops, ops
from jaxmask._types import Array, ArrayLike, Mask
from jaxmask.metrics._averages import Averaging, averaged, averaging
from jaxmask.metrics._compensated import CompensatedSum
from jaxmask.metrics._metric import Metric, metric, static
from jaxmask.metrics._reading import NO_CLASS, class_ids

# What each scheme calls the first step, an inner one, the last and an only one.
_PREFIXES = {None: "BIES", "BIO": "BI", "BIOES": "BIES", "BILOU": "BILU"}


class _Transitions(NamedTuple):
    """Tag-transition tables `[previous, next]`; the last id stands for the row boundary."""

    starts: np.ndarray  # a span begins at `next`
    continues: np.ndarray  # `next` is in the span of `previous`
    ends: np.ndarray  # a span that reached `previous` ends there and counts


@metric
class SpanF1(Metric):
    """F1 of the spans that tags name: entities, phrases, chunks.

        compute() = 2 * number of correct spans / (number predicted + number true)

    A span is correct if its type and both boundaries match. Spans follow real steps, so
    padding may lie anywhere (mask class: any).

    Attributes:
      counts: `[3, types]`, the numbers of correct, predicted and true spans, compensated.
      tags: static, the name of each id.
      scheme: static.
      averaging: static, how the types become one number.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
      >>> targets, predictions = jnp.array([[1, 2, 0, 3, 0]]), jnp.array([[1, 2, 0, 3, 4]])
      >>> mask = jnp.array([[True, True, True, True, False]])
      >>> metric = jm.metrics.SpanF1.empty(tags).update(predictions, mask, targets)
      >>> float(metric.compute()), metric.types
      (1.0, ('LOC', 'PER'))
      >>> float(jm.metrics.SpanF1.empty(tags).update(predictions, None, targets).compute())
      0.5

    Agrees with `seqeval.metrics.f1_score`, `precision_score` and `recall_score` of the real steps:
    with its default mode where `scheme` is None, and else with `mode="strict"` and `IOB2`, `IOBES`
    or `BILOU`.
    """

    counts: CompensatedSum
    tags: tuple[str, ...] = static(default=())
    scheme: str | None = static(default=None)
    averaging: Averaging = static(default=Averaging("micro"))

    @classmethod
    def empty(
        cls,
        tags: Sequence[str],
        average: str | None = "micro",
        *,
        scheme: str | None = None,
        zero_division: float = 0.0,
    ) -> Self:
        """The metric of no step at all.

        Args:
          tags: static, the name of each id: "O", or a prefix, a hyphen and a type, as "B-PER".
          average: static. "micro": all spans counted together. "macro": the mean over the types
            that occur in targets or predictions. "weighted": the mean weighted by the number of
            true spans. None: one score for each of `types`.
          scheme: static. None: as conlleval; prefixes B, I, E and S, and a span that begins with I
            or E counts too. "BIO", "BIOES" or "BILOU": only well-formed spans count.
          zero_division: static, 0, 1 or nan, as in `F1.empty`. Where it is 1, a type with spans on
            one side only scores 0.
        """
        where = "SpanF1.empty"
        _check.choice(scheme, _PREFIXES, where, "scheme")
        tags = tuple(tags)
        for tag in tags:
            prefix, hyphen, kind = str(tag).partition("-")
            if tag != "O" and not (prefix in tuple(_PREFIXES[scheme]) and hyphen and kind):
                raise ValueError(
                    f"{where}: each of `tags` must be 'O' or '<prefix>-<type>', prefix one of "
                    f"{', '.join(_PREFIXES[scheme])} for the scheme {scheme!r}, got {tag!r}."
                )
        types = _types(tags)
        if not types or len(set(tags)) < len(tags):
            raise ValueError(
                f"{where}: `tags` must be distinct and include a span tag such as 'B-PER', got "
                f"{tags}."
            )
        rule = averaging(average, None, zero_division, len(types), where, binary=False)
        return cls(CompensatedSum.of(jnp.zeros((3, len(types)))), tags, scheme, rule)

    @property
    def types(self) -> tuple[str, ...]:
        """The types of spans, sorted."""
        return _types(self.tags)

    def update(self, predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Self:
        """Take in a batch.

        Args:
          predictions: ids of tags, `[batch, time]`; or logits, `[batch, time, tags]`, whose first
            maximum counts.
          mask: `[batch, time]`, boolean, or `Segments` (no span crosses from one to the next), or
            None. Where only the first piece of a word is to count, the mask marks those steps.
          targets: ids of tags, `[batch, time]`.

        Returns:
          A new metric.

        Raises:
          ValueError: if shapes disagree, or a real id is not a tag; under `jit`, where values are
            not known, or where a logit is nan, the metric is then nan.
        """
        where = "SpanF1.update"
        read = class_ids(predictions, mask, targets, where, len(self.tags))
        ids, mask = _check.pair(read.targets, mask, where, over_time=True, name="targets")
        if ids.ndim != 2:
            raise ValueError(f"{where}: `targets` must be [batch, time], got shape {ids.shape}.")
        real = _mask_ops.real_steps(mask, ids.shape)
        known = read.valid & (read.predictions != NO_CLASS)
        transitions, kinds = _transitions(self.tags, self.scheme), _kinds(self.tags)
        predicted = _spans(jnp.where(known, read.predictions, 0), mask, transitions, kinds)
        true = _spans(ids, mask, transitions, kinds)
        correct = (predicted[0] == true[0]) & (predicted[1] == true[1]) & (true[1] >= 0)
        kept = (jnp.where(correct, true[1], -1), predicted[1], true[1])
        types = jnp.arange(len(self.types))[None, None]
        counts = jnp.stack([jnp.sum(k[..., None] == types, axis=(0, 1)) for k in kept])
        counts = jnp.where(jnp.all(known | ~real), counts.astype(jnp.float32), jnp.nan)
        return dataclasses.replace(self, counts=self.counts.add(CompensatedSum.of(counts)))

    def compute(self) -> Array:
        """The F1 score, float32: a scalar, or `[types]` where the average is None."""
        correct, predicted, true = self.counts.value()
        return self._averaged(2 * correct, predicted + true)

    def precision(self) -> Array:
        """The number of correct spans over that of the predicted ones, averaged as `compute`."""
        correct, predicted, _ = self.counts.value()
        return self._averaged(correct, predicted)

    def recall(self) -> Array:
        """The number of correct spans over that of the true ones, averaged as `compute`."""
        correct, _, true = self.counts.value()
        return self._averaged(correct, true)

    def _averaged(self, top: Array, bottom: Array) -> Array:
        _, predicted, true = self.counts.value()
        return averaged(top, bottom, (predicted + true) != 0, true, self.averaging)


def _types(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({tag[2:] for tag in tags if tag != "O"}))


def _kinds(tags: tuple[str, ...]) -> np.ndarray:
    """The type of each tag; -1 for none."""
    types = _types(tags)
    return np.array([types.index(tag[2:]) if tag != "O" else -1 for tag in tags], np.int32)


def _transitions(tags: tuple[str, ...], scheme: str | None) -> _Transitions:
    # One alphabet: in BILOU, L is what E is in BIOES, and U is S.
    prefix = np.array([{"L": "E", "U": "S"}.get(tag[0], tag[0]) for tag in (*tags, "O")])
    kind = np.append(_kinds(tags), -1)
    before, after, same = prefix[:, None], prefix[None], kind[:, None] == kind[None]
    if scheme is not None:
        starts = np.broadcast_to(np.isin(after, ["B", "S"]), same.shape)
        continues = np.isin(before, ["B", "I"]) & np.isin(after, ["I", "E"]) & same
        complete = ["B", "I"] if scheme == "BIO" else ["E", "S"]
        return _Transitions(starts, continues, np.isin(before, complete) & ~continues)
    breaks = np.isin(before, ["B", "I"]) & np.isin(after, ["B", "S", "O"])
    ends = np.isin(before, ["E", "S"]) | breaks | ((before != "O") & ~same)
    anew = np.isin(before, ["E", "S", "O"]) & np.isin(after, ["E", "I"])
    starts = np.isin(after, ["B", "S"]) | anew | ((after != "O") & ~same)
    return _Transitions(starts, ~ends, ends)


def _spans(
    tags: Array, mask: Mask, transitions: _Transitions, kinds: np.ndarray
) -> tuple[Array, Array]:
    """At the last step of each span, where it began and its type; type -1 elsewhere."""
    real, beyond = _mask_ops.real_steps(mask, tags.shape), len(kinds)
    before, _ = ops.shift(tags, mask, 1, value=beyond)
    after, _ = ops.shift(tags, mask, -1, value=beyond)
    starts = real & _looked_up(transitions.starts, before, tags)
    continues = _looked_up(transitions.continues, before, tags)
    column = jnp.arange(tags.shape[1], dtype=jnp.int32)[None]

    def latest(here: Array) -> Array:
        return jax.lax.cummax(jnp.where(here, column, -1), axis=1)

    # A step is inside a span if the last start is later than the last real step that neither starts
    # nor continues one.
    began, broken = latest(starts), latest(real & ~starts & ~continues)
    ends = real & (began > broken) & _looked_up(transitions.ends, tags, after)
    return began, jnp.where(ends, jnp.asarray(kinds)[tags], -1)


def _looked_up(table: np.ndarray, before: Array, after: Array) -> Array:
    # int32: a boolean constant is read as a mask by tests/test_constant_masks.py.
    return jnp.asarray(table, jnp.int32)[before, after] > 0
