"""Layers that other libraries have as options of theirs."""

from typing import Any

import jax.numpy as jnp

from jaxmask import _check, _mask_ops, nn
from jaxmask._types import ArrayLike, Mask, Pair


class EmbedWithPadding(nn.Embed):
    """An embedding in which one id, not always 0, is padding: PyTorch's `padding_idx`."""

    def __init__(self, *sizes: int, padding_id: int, **options: Any):
        super().__init__(*sizes, **options)
        self.padding_id = padding_id

    def __call__(self, ids: ArrayLike, mask: Mask = None) -> Pair:
        """Look up the real ids and return `(y, mask)`."""
        array, mask = _check.pair(ids, mask, "Embed", name="ids")
        real = _check.unfolded(ids, jnp.asarray(array) != self.padding_id)
        return super().__call__(ids, _mask_ops.intersect(mask, real, "Embed"))


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
