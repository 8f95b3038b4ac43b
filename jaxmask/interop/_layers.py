"""Layers that other libraries have as options of theirs."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmask import _check, nn
from jaxmask._types import ArrayLike, Mask, Pair


class EmbedWithPadding(nn.Embed):
    """PyTorch's `padding_idx`: an id whose vector is not trained.

    Without a mask that id is padding. Under a mask it may be a real step, as in PyTorch, where
    packed sequences and `key_padding_mask` say what is padding.
    """

    def __init__(self, *sizes: int, padding_id: int, **options: Any):
        super().__init__(*sizes, **options)
        self.padding_id = padding_id

    def __call__(self, ids: ArrayLike, mask: Mask = None) -> Pair:
        """Look up the real ids and return `(y, mask)`."""
        array, mask = _check.pair(ids, mask, "Embed", name="ids")
        is_trained = _check.unfolded(ids, jnp.asarray(array) != self.padding_id)
        y, mask = super().__call__(ids, is_trained if mask is None else mask)
        return jnp.where(is_trained[..., None], y, jax.lax.stop_gradient(y)), mask


class FlaxGRU(nn.GRU):
    """A GRU with Flax's biases: one for the inputs and, in Linen, one inside the reset product."""

    def __init__(self, *sizes: int, bias_features: int, **options: Any):
        self.bias_features = bias_features
        super().__init__(*sizes, **options)

    def _bias_shape(self) -> tuple[int, ...]:
        return (self.bias_features,)

    def _layer(self, x: ArrayLike, mask: Mask, weights: Any, carry: Any, **options: Any) -> Any:
        w_x, w_h, b = weights
        width = 3 * self.hidden_features
        inside = jnp.pad(b[width:], (2 * width - len(b), 0))  # 0 for the gates
        both = jnp.stack([b[:width], inside])
        return super()._layer(x, mask, (w_x, w_h, both), carry, **options)
