"""Windows over time: where they lie, which of them are real, and what packed rows need."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxmask import _check, _mask_ops, ops
from jaxmask._steps import filled, gather, to_left
from jaxmask._types import Array, Ids, Mask, Pair, Segments, StepMask

Compute = Callable[[Array, Mask], Array]
Padding: TypeAlias = str | int | tuple[int, int]

# The first rule is the default. By a rule that is not listed, the number of real outputs would
# depend on how much padding there is: a `valid` window that is real if any step is, say, exists in
# a padded row and not in the row alone.
# Padding given in numbers has one rule, "row": the outputs that the row alone would have.
RULES = {
    "same": ("anchor", "all"),
    "causal": ("anchor", "all"),
    "reverse_causal": ("anchor", "all"),
    "valid": ("all",),
    "full": ("any", "anchor", "all"),
}


# How a row goes on beyond its ends: from the place in the row, counted from its first step, and its
# length, to the step that stands there. For any length, as in NumPy.
CONTINUATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "reflect": lambda at, size: _reflected(at, jnp.maximum(2 * (size - 1), 1)),
    "replicate": lambda at, size: jnp.clip(at, 0, size - 1),
    "circular": lambda at, size: at % size,
}
PADDING_MODES = ("zeros", *CONTINUATIONS)


def _reflected(at: Array, period: Array) -> Array:
    at = at % period
    return jnp.minimum(at, period - at)


@dataclass(frozen=True)
class Window:
    """A window that slides over one axis; output i is anchored at step `i * stride`."""

    size: int
    stride: int = 1
    dilation: int = 1
    padding: str | tuple[int, int] = "valid"
    rule: str = "all"
    ceil: bool = False  # a last window may reach past the end, if it begins before it

    @property
    def span(self) -> int:
        """Steps from the first to the last that a window covers."""
        return (self.size - 1) * self.dilation + 1

    @property
    def left(self) -> int:
        """Steps of a window before its anchor: the same for every length, unlike XLA's SAME."""
        if isinstance(self.padding, tuple):
            return self.padding[0]
        before = {"same": (self.span - 1) // 2, "causal": self.span - 1, "full": self.span - 1}
        return before.get(self.padding, 0)

    @property
    def right(self) -> int:
        """Steps after the end of a row that windows cover."""
        if isinstance(self.padding, tuple):
            return self.padding[1]
        right = self.span - 1
        return {"valid": 0, "full": right}.get(self.padding, right - self.left)

    @property
    def is_numeric(self) -> bool:
        return isinstance(self.padding, tuple)

    @property
    def slack(self) -> int:
        """Steps that a last window may reach further."""
        return self.stride - 1 if self.ceil else 0

    @property
    def gap(self) -> int:
        """Steps of padding between packed sequences, for no window and no end to meet another."""
        return max(self.span - 1, self.left + self.right + self.slack)

    @property
    def keeps_time(self) -> bool:
        """True if output i belongs to step i."""
        return self.stride == 1 and self.padding in ("same", "causal", "reverse_causal")

    def steps_out(self, time: int) -> int:
        """How many windows an axis of `time` steps has; none where it has no step."""
        if not time:
            return 0
        extra = self.left + self.right + self.slack - self.span
        count = max(0, (time + extra) // self.stride + 1)
        if self.ceil and self.stride > self.span - self.right:  # else none begins after the end
            count = jax.core.min_dim(count, (time + self.left - 1) // self.stride + 1)
        return count

    @property
    def pads(self) -> tuple[int, int]:
        """Zeros before and after the steps, so that no window reaches past the array."""
        return self.left, self.right + self.slack

    def total(self, values: Int[Array, "batch time"]) -> Int[Array, "batch window"]:
        """Sum of `values` over all steps from the first to the last of each window."""
        count, (left, right) = self.steps_out(values.shape[1]), self.pads
        # Zeros in front come after the sum: XLA sums a single step between two like pads wrongly.
        sums = jnp.cumsum(jnp.pad(values, ((0, 0), (0, right))), axis=1, dtype=jnp.int32)
        before = jnp.pad(sums, ((0, 0), (left + 1, 0)))
        return self.each(before, count, self.span) - self.each(before, count)

    def taps(self, values: Int[Array, "batch time"]) -> Int[Array, "batch window"]:
        """`total` of the steps that a window reads."""
        if self.dilation == 1:
            return self.total(values)
        count, padded = self.steps_out(values.shape[1]), jnp.pad(values, ((0, 0), self.pads))
        read = [self.each(padded, count, k * self.dilation) for k in range(self.size)]
        return sum(read[1:], read[0].astype(jnp.int32))

    def each(self, x: Array, count: int, first: int = 0) -> Array:
        """The `count` columns of `x` at which windows are anchored, from column `first` on."""
        # A slice with a step gives a symbolic size another form than convolutions do, and JAX does
        # not see that the two are equal.
        if not count:
            return x[:, :0]
        end = first + (count - 1) * self.stride + 1
        return jax.lax.slice_in_dim(x, first, end, self.stride, axis=1)

    def real_windows(self, mask: StepMask) -> StepMask:
        """Which windows are real, by the rule."""
        count = self.steps_out(mask.shape[1])
        if self.rule == "row":
            return self._of_row(mask, count)
        if self.rule == "anchor":
            return self._anchors(mask, count)
        steps = self.total(mask)
        return steps == self.span if self.rule == "all" else steps > 0

    def _anchors(self, x: Array, count: int) -> Array:
        return self.each(jnp.pad(x, ((0, 0), (0, self.pads[1]))), count)

    def _of_row(self, mask: StepMask, count: int) -> StepMask:
        """The windows that the row alone has, from its first real step to its last."""
        start = jnp.arange(count, dtype=jnp.int32)[None] * self.stride
        first, end = (edge[:, None] for edge in edges(mask))
        real = (start >= first) & (start + self.span <= end + self.left + self.right + self.slack)
        return real & (start < end + self.left if self.ceil else True) & (first < end)

    def ids_out(self, segments: Segments) -> Ids:
        """The ids of the real windows over sequences that lie `gap` apart."""
        ids, count = jnp.asarray(segments.ids), self.steps_out(segments.shape[1])
        if self.rule == "row":
            return of_each(lambda mask: self._of_row(mask, count), segments)
        if self.rule == "anchor":
            return self._anchors(ids, count)
        # A window overlaps one sequence only, so the mean of the ids in it is the id.
        id_met = self.total(ids) // jnp.maximum(self.total(ids > 0), 1)
        return jnp.where(self.real_windows(ids > 0), id_met, 0).astype(ids.dtype)

    def mask_out(self, mask: Mask, shape: tuple[int, ...]) -> StepMask | None:
        """The mask of the windows over `[batch, time]`; None for None where all are real."""
        if mask is None and self.rule == rules_of(self.padding)[0]:
            return None
        return self.real_windows(_mask_ops.real_steps(mask, shape[:2]))


def rules_of(padding: str | tuple[int, int]) -> tuple[str, ...]:
    """The rules that go with a padding, the default first."""
    return ("row",) if isinstance(padding, tuple) else RULES[padding]


def of_each(function: Callable[[StepMask], StepMask], segments: Segments) -> Ids:
    """The ids of what `function` makes of the mask of each sequence, where no two overlap."""
    each = jax.vmap(function, in_axes=1, out_axes=1)(_mask_ops.of_each_segment(segments))
    numbers = jnp.arange(1, segments.max_segments + 1, dtype=segments.ids.dtype)[:, None]
    return jnp.sum(jnp.where(each, numbers, 0), axis=1, dtype=segments.ids.dtype)


def edges(mask: StepMask) -> tuple[Array, Array]:
    """The first real step of each row and the one after its last; equal, 0, in an empty row."""
    step = jnp.arange(mask.shape[1], dtype=jnp.int32)[None]
    end = jnp.max(jnp.where(mask, step + 1, 0), axis=1, initial=0)
    return end - jnp.max(jnp.where(mask, end[:, None] - step, 0), axis=1, initial=0), end


def extended(x: Array, mask: Mask, left: int, right: int, mode: str) -> Array:
    """`[batch, left + time + right, ...]`: each row goes on beyond its own ends; `x` is filled.

    So does each sequence of `Segments`, which lie `left + right` apart.
    """
    batch, time = x.shape[:2]
    place = jnp.arange(-left, time + right, dtype=jnp.int32)[None]

    def of_row(real: StepMask) -> tuple[Array, Array]:
        first, end = (edge[:, None] for edge in edges(real))
        index = first + CONTINUATIONS[mode](place - first, jnp.maximum(end - first, 1))
        return index, (place >= first - left) & (place < end + right)

    if isinstance(mask, Segments):
        index, inside = jax.vmap(of_row, in_axes=1)(_mask_ops.of_each_segment(mask))
        return gather(x, jnp.sum(jnp.where(inside, index, 0), axis=0))
    index, _ = of_row(_mask_ops.real_steps(mask, (1, time)))
    return gather(x, jnp.broadcast_to(index, (batch, index.shape[1])))


def checked_padding(padding: Padding, where: str, name: str) -> str | tuple[int, int]:
    """One of the words, or numbers of steps: one for both ends, or one for each."""
    if isinstance(padding, str):
        _check.choice(padding, RULES, where, name)
        return padding
    if isinstance(padding, tuple | list):
        return _check.two_counts(padding, where, name, "left, right")
    if not isinstance(padding, int | np.integer) or isinstance(padding, bool):
        _check.choice(padding, (*RULES, "a number", "(left, right)"), where, name)
    width = _check.count(padding, where, name)
    return width, width


def window(
    size: int,
    stride: int,
    padding: Padding,
    mask_rule: str | None,
    where: str,
    *,
    dilation: int = 1,
    ceil: bool = False,
    names: tuple[str, str] = ("window", "strides"),
) -> Window:
    """A checked `Window`; `names` are what the caller calls its size and its stride."""
    size = _check.count(size, where, names[0], least=1)
    stride = _check.count(stride, where, names[1], least=1)
    dilation = _check.count(dilation, where, "dilation", least=1)
    padding = checked_padding(padding, where, "padding")
    ceil = _check.flag(ceil, where, "ceil_mode")
    if ceil and padding == "valid":
        padding = (0, 0)
    if ceil and not isinstance(padding, tuple):
        raise ValueError(
            f'{where}: `ceil_mode` goes with padding="valid" or with numbers, got {padding!r}, '
            "whose windows reach every step."
        )
    rules = rules_of(padding)
    rule = rules[0] if mask_rule is None else mask_rule
    if rule not in rules:
        allowed = ", ".join(repr(option) for option in rules)
        raise ValueError(
            f"{where}: `mask_rule` with padding={padding!r} must be one of {allowed}, got "
            f"{mask_rule!r}. By another rule the mask would depend on how much padding there is."
        )
    return Window(size, stride, dilation, padding, rule, ceil)


class Spreading(NamedTuple):
    """How the steps of one axis are spread by a transposed convolution."""

    span: int
    stride: int
    dilation: int
    cut: int
    tail: int  # outputs besides `stride` for each step; may be negative
    is_numeric: bool

    def steps_out(self, steps: int) -> int:
        return max(steps * self.stride + self.tail, 0) if steps else 0

    def pads(self, steps: int) -> tuple[int, int]:
        left = self.span - 1 - self.cut
        right = self.steps_out(steps) - (steps - 1) * self.stride - 1 + self.span - 1 - left
        return left, right


def spreading(
    size: int,
    stride: int,
    padding: str | int,
    output_padding: int,
    dilation: int,
    where: str,
    *,
    name: str = "kernel.shape (its window)",
    padding_name: str = "padding",
) -> Spreading:
    """A checked `Spreading`; the names are what the caller calls its size and its padding."""
    _check.count(size, where, name, least=1)
    stride = _check.count(stride, where, "strides", least=1)
    dilation = _check.count(dilation, where, "dilation", least=1)
    span = (size - 1) * dilation + 1
    further = _check.count(output_padding, where, "output_padding")
    if isinstance(padding, str):
        _check.choice(padding, ("same", "valid", "causal"), where, padding_name)
        if further:
            raise ValueError(
                f"{where}: `output_padding` goes with a number for `padding`, got {padding!r}, "
                "which says how many outputs there are."
            )
        tail = max(span - stride, 0) if padding == "valid" else 0
        cut = max((span - stride) // 2, 0) if padding == "same" else 0
        return Spreading(span, stride, dilation, cut, tail, is_numeric=False)
    cut = _check.count(padding, where, padding_name)
    if further >= max(stride, dilation):
        raise ValueError(
            f"{where}: `output_padding` must be below `strides` or `dilation`, got {further} with "
            f"{stride} and {dilation}."
        )
    tail = span - stride - 2 * cut + further
    return Spreading(span, stride, dilation, cut, tail, is_numeric=True)


def inexact(x: Array, where: str) -> None:
    """Floating point or complex values only."""
    if not jnp.issubdtype(x.dtype, jnp.complexfloating):
        _check.floating(x, where)


def slide(compute: Compute, x: Array, mask: Mask, window: Window) -> Pair:
    """Run `compute(x, mask) -> y [batch, window, ...]`, and give the result its mask.

    `compute` must not let padding into a window; `window.gap` steps of padding keep the sequences
    of a packed row apart.
    """
    if isinstance(mask, Segments):
        return _slide_apart(compute, x, mask, window)
    if mask is not None and window.stride > 1:  # strides count from the first step of the row
        x, mask = to_left(x, mask)
    y, new = compute(x, mask), window.mask_out(mask, x.shape)
    return filled(y, new), new


def _slide_apart(compute: Compute, x: Array, segments: Segments, window: Window) -> Pair:
    """One pass over a longer row: it costs `gap` steps a sequence, whatever `compute` is."""
    ids, max_segments = segments.ids, max(segments.max_segments, 1)
    target, time = spread(ids, max_segments, window.gap, window.stride)
    apart = Segments(scatter(ids, target, time), segments.max_segments)
    y = compute(scatter(filled(x, segments), target, time), apart)
    new = Segments(window.ids_out(apart), segments.max_segments)
    if window.keeps_time:
        y, new = gather(y, target), Segments(gather(new.ids, target), segments.max_segments)
        return filled(y, new), new
    # A sequence of n steps has at most (n + extra) // stride windows.
    extra = window.left + window.right + window.slack - window.span + window.stride
    if max_segments == 1 or extra < 0:
        return close_up(y, new, window.steps_out(x.shape[1]))
    return close_up(y, new, (x.shape[1] + max_segments * extra) // window.stride)


def close_up(y: Array, segments: Segments, time: int) -> Pair:
    """Close the gaps between sequences, and keep the first `time` steps."""
    y, new = ops.compact(y, segments)
    assert isinstance(new, Segments)
    return y[:, :time], Segments(new.ids[:, :time], new.max_segments)


def spread(ids: Ids, max_segments: int, gap: int, stride: int = 1) -> tuple[Ids, int]:
    """Where each step goes so that sequences lie `gap` apart and start at multiples of `stride`.

    Returns the target of each step, and the number of steps of the longer row.
    """
    time = ids.shape[1]
    gap = gap + stride - 1  # rounding up to a multiple of the stride may eat that many
    step = jnp.arange(time, dtype=jnp.int32)[None]
    # A hole inside a sequence does not begin another: compare with the last real step before.
    latest = jax.lax.cummax(jnp.where(ids > 0, step + 1, 0), axis=1)
    before = jnp.take_along_axis(jnp.pad(ids, ((0, 0), (1, 0))), latest, axis=1, mode="clip")
    starts = (ids > 0) & (ids != jnp.pad(before, ((0, 0), (1, 0)))[:, :time])
    rank = jnp.maximum(jnp.cumsum(starts, axis=1, dtype=jnp.int32) - 1, 0)
    start = jax.lax.cummax(jnp.where(starts, step, 0), axis=1)
    target = -(-(start + rank * gap) // stride) * stride + step - start
    return target, time + (max_segments - 1) * gap + stride - 1


def scatter(x: Array, target: Ids, time: int) -> Array:
    """`x` with step t moved to `target[t]` of `time` steps, 0 elsewhere; `gather` takes it back."""
    row = jnp.arange(x.shape[0])[:, None]
    longer = jnp.zeros((x.shape[0], time, *x.shape[2:]), x.dtype)
    return longer.at[row, target].set(x, mode="drop", unique_indices=True)
