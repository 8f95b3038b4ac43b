"""Where windows over time lie, and which of them are real: shared by every function here."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Int

from jaxmask import _check, _mask_ops
from jaxmask._types import Array, Mask, StepMask

# The first rule is the default. A rule that is not listed would make the number of real outputs
# depend on how much padding there is: a `valid` window that counts as real by one step, say, has
# a place in a padded row and none in the row alone.
RULES = {
    "same": ("anchor", "all"),
    "causal": ("anchor", "all"),
    "reverse_causal": ("anchor", "all"),
    "valid": ("all",),
    "full": ("any", "anchor", "all"),
}


@dataclass(frozen=True)
class Window:
    """A window that slides over one axis; output i is anchored at step `i * stride`.

    Example:
      >>> window = Window(size=3, stride=2, padding="same")
      >>> window.steps_out(5), window.pads
      (3, (1, 1))
    """

    size: int
    stride: int = 1
    dilation: int = 1
    padding: str = "valid"
    rule: str = "all"

    @property
    def span(self) -> int:
        """Steps from the first to the last that a window covers."""
        return (self.size - 1) * self.dilation + 1

    @property
    def left(self) -> int:
        """Steps of a window before its anchor: the same for every length, unlike XLA's SAME."""
        before = {"same": (self.span - 1) // 2, "causal": self.span - 1, "full": self.span - 1}
        return before.get(self.padding, 0)

    @property
    def keeps_time(self) -> bool:
        """True if output i stands at step i."""
        return self.stride == 1 and self.padding not in ("valid", "full")

    def steps_out(self, time: int) -> int:
        """How many windows an axis of `time` steps has; none where it has no step."""
        extra = {"valid": 1 - self.span, "full": self.span - 1}.get(self.padding, 0)
        return max(0, (time + extra - 1) // self.stride + 1) if time else 0

    @property
    def pads(self) -> tuple[int, int]:
        """Zeros before and after the steps, so that every window finds its steps."""
        right = self.span - 1
        return self.left, {"valid": 0, "full": right}.get(self.padding, right - self.left)

    def total(self, values: Int[Array, "batch time"]) -> Int[Array, "batch window"]:
        """Sum of `values` over all steps from the first to the last of each window.

        Example:
          >>> Window(size=2).total(jnp.array([[1, 0, 1, 1]])).tolist()
          [[1, 1, 2]]
        """
        count, (left, right) = self.steps_out(values.shape[1]), self.pads
        before = jnp.cumsum(jnp.pad(values, ((0, 0), (left + 1, right))), axis=1, dtype=jnp.int32)
        return self.each(before, count, self.span) - self.each(before, count)

    def each(self, x: Array, count: int, first: int = 0) -> Array:
        """The `count` columns of `x` at which windows are anchored, from column `first` on.

        Example:
          >>> Window(size=2, stride=2).each(jnp.arange(5)[None], 2, first=1).tolist()
          [[1, 3]]
        """
        # A slice with a step gives a symbolic size another form than convolutions do, and JAX does
        # not see that the two are equal.
        if not count:
            return x[:, :0]
        end = first + (count - 1) * self.stride + 1
        return jax.lax.slice_in_dim(x, first, end, self.stride, axis=1)

    def real(self, mask: StepMask) -> StepMask:
        """Which windows are real, by the rule.

        Example:
          >>> Window(size=2).real(jnp.array([[True, True, False]])).tolist()
          [[True, False]]
        """
        count = self.steps_out(mask.shape[1])
        if self.rule == "anchor":
            return self.each(jnp.pad(mask, ((0, 0), (0, self.pads[1]))), count)
        steps = self.total(mask)
        return steps == self.span if self.rule == "all" else steps > 0

    def mask_out(self, mask: Mask, shape: tuple[int, ...]) -> StepMask | None:
        """The mask of the windows over `[batch, time]`; None for None where all are real."""
        if mask is None and self.rule == RULES[self.padding][0]:
            return None
        return self.real(_mask_ops.real_steps(mask, shape[:2]))


def window(
    size: int,
    stride: int,
    padding: str,
    mask_rule: str | None,
    where: str,
    *,
    dilation: int = 1,
    names: tuple[str, str] = ("window", "strides"),
) -> Window:
    """A checked `Window`; `names` are what the caller calls its size and its stride.

    Example:
      >>> window(3, 1, "causal", None, "conv1d").left
      2
    """
    size = _check.count(size, where, names[0], least=1)
    stride = _check.count(stride, where, names[1], least=1)
    dilation = _check.count(dilation, where, "dilation", least=1)
    _check.choice(padding, RULES, where, "padding")
    rule = RULES[padding][0] if mask_rule is None else mask_rule
    if rule not in RULES[padding]:
        allowed = ", ".join(repr(option) for option in RULES[padding])
        raise ValueError(
            f"{where}: `mask_rule` with padding={padding!r} must be one of {allowed}, got "
            f"{mask_rule!r}. By another rule the mask would depend on how much padding there is."
        )
    return Window(size, stride, dilation, padding, rule)


def inexact(x: Array, where: str) -> None:
    """Floating point or complex values only.

    Example:
      >>> inexact(jnp.zeros(3), "conv1d")
    """
    if not jnp.issubdtype(x.dtype, jnp.complexfloating):
        _check.floating(x, where)
