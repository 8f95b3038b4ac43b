"""What windowed modules share that run chunk by chunk: the carry is what windows reach back for."""

import jax

from jaxmask import _check
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.conv import _streaming as streaming
from jaxmask.nn._base import MaskedModule


class Causal(MaskedModule):
    """What windowed modules share that run chunk by chunk if they are causal, with stride 1."""

    padding: str
    strides: int
    mask_rule: str | None
    dtype: jax.typing.DTypeLike | None = None  # what a call casts `x` to, and so a chunk

    def _reach(self) -> int:
        """Steps that a window reaches back."""
        raise NotImplementedError

    def _past_features(self) -> tuple[int, ...]:
        raise NotImplementedError

    def _over_chunk(self, x: Array, real: Array) -> Array:
        """The results for a chunk, given `_reach()` steps more before it."""
        raise NotImplementedError

    def _require_causal(self) -> None:
        if self.padding != "causal" or self.strides != 1 or self.mask_rule not in (None, "anchor"):
            raise _check.MaskError(
                f"{type(self).__name__}: only a causal layer of stride 1, whose mask comes out as "
                'it went in, runs chunk by chunk. Use padding="causal", strides=1, mask_rule=None; '
                f"this one has padding={self.padding!r}, strides={self.strides}, "
                f"mask_rule={self.mask_rule!r}."
            )

    def initial_carry(self, batch: int) -> streaming.Past:
        """What a call starts from, for `batch` rows: padding, float32."""
        self._require_causal()
        return streaming.no_past(batch, self._reach(), self._past_features())

    def run(
        self, carry: streaming.Past, x: ArrayLike, mask: Mask = None
    ) -> tuple[streaming.Past, Pair]:
        """Run a chunk from `carry` and return `(carry, (y, mask))`."""
        self._require_causal()
        where = type(self).__name__
        if self.dtype is not None:
            x = _check.array(x, "x", where).astype(self.dtype)
        return streaming.with_past(self._over_chunk, carry, x, mask, where)
