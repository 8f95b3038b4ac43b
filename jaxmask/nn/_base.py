"""What the modules of jaxmask share."""

from typing import Any, ClassVar

from flax import nnx

from jaxmask._types import Mask


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
        # A copy has variables of its own, so what it updates stays with it.
        return nnx.merge(*nnx.split(self), copy=True)(x, mask)[1]
