"""What the modules of jaxmask share."""

from typing import Any, ClassVar, TypeVar

from flax import nnx

from jaxmask._types import Mask

M = TypeVar("M", bound=nnx.Module)


class MaskedModule(nnx.Module):
    """A module `(x, mask) -> (y, mask)`. A user's layer needs no base class to be one.

    `per_step` is True for a class that acts on each step alone, so that `Sequential.run` may call
    it chunk by chunk without a carry.
    """

    per_step: ClassVar[bool] = False

    def __call__(self, x: Any, mask: Mask = None) -> tuple[Any, Mask]:
        """Compute the pair."""
        raise NotImplementedError

    def compute_mask(self, x: Any, mask: Mask = None) -> Mask:
        """The mask that calling the module gives; no random stream and no statistic changes.

        It costs a call, since a mask may depend on values; under `jit` what only the values need is
        not computed.
        """
        return quiet_copy(self)(x, mask)[1]


def quiet_copy(module: M) -> M:
    """A copy with variables of its own and no noise, to ask for a mask: nothing else changes.

    Example:
      >>> quiet_copy(nnx.Dropout(0.5)).deterministic
      True
    """
    copy = nnx.merge(*nnx.split(module), copy=True)
    # No mask depends on noise, and layers may get their streams only when they are called.
    copy.set_attributes(deterministic=True, raise_if_not_found=False)
    return copy
