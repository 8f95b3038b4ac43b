"""Both directions over each row."""

from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, _mask_ops, masks, ops
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.nn import _join as join
from jaxmask.nn._base import MaskedModule, quiet_copy
from jaxmask.nn._locate import located
from jaxmask.nn._options import CallOptions, Given, opened, taken
from jaxmask.nn._recurrent import Recurrent

_MERGES: dict[str | None, Callable[[Array, Array], Any]] = {
    "concat": lambda a, b: jnp.concatenate([a, b], axis=-1),
    "sum": jnp.add,
    "mul": jnp.multiply,
    "ave": lambda a, b: (a + b) / 2,
    None: lambda a, b: (a, b),
}


_BACKWARD = "Bidirectional: `backward`"


class Bidirectional(MaskedModule):
    """One layer over each row forward, another over it backward, and both results merged.

    Backward means each row reversed within its own real steps, never the padded array flipped.
    Results stay at their own steps: `y[b, t]` joins what was seen up to `t` and from `t` on.
    A `backward` that is a function, not a module, is always given a mask, and its mask comes out.

    Shapes: those of the two layers; `"concat"` adds up their features.

    Args:
      forward: a masked layer `(x, mask) -> (y, mask)`.
      backward: another; a recurrent one runs in reverse whatever its own flag says.
      merge: `"concat"` (along features), `"sum"`, `"mul"`, `"ave"`, or None for a tuple of both.

    Raises:
      MaskError: on call, if the two layers return masks of different shapes.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> rngs = nnx.Rngs(0)
      >>> layer = jm.nn.Bidirectional(jm.nn.LSTM(3, 4, rngs=rngs), jm.nn.LSTM(3, 4, rngs=rngs))
      >>> y, mask = layer(jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool))
      >>> y.shape
      (2, 5, 8)

    Agrees with `keras.layers.Bidirectional`. Source: Schuster and Paliwal, 1997,
    doi:10.1109/78.650093.
    """

    def __init__(
        self,
        forward: Callable[..., Pair],
        backward: Callable[..., Pair],
        merge: str | None = "concat",
    ):
        _check.choice(merge, _MERGES, "Bidirectional", "merge")
        join.require_layer(forward, "Bidirectional: `forward`")
        join.require_layer(backward, _BACKWARD)
        if getattr(forward, "reverse", False) is True:
            raise ValueError(
                "Bidirectional: `forward` has `reverse=True`, so both directions would run "
                "backward. Build it with `reverse=False`."
            )
        self.forward = forward
        self.backward = backward
        self.merge = merge

    def __call__(
        self, x: ArrayLike, mask: Mask = None, **options: Unpack[CallOptions]
    ) -> tuple[Any, Mask]:
        """Run both directions and return `(y, mask)`; options as in `Sequential`."""
        x, mask = _check.pair(x, mask, "Bidirectional", over_time=True)
        model, given = opened(self, options)
        y_forward, mask_forward = join.call(
            model.forward, x, mask, at="Bidirectional: `forward`", given=given
        )
        y_backward, mask_backward = _run_backward(model.backward, x, mask, given)
        if self.merge is not None:
            _require_same_axes(y_forward, y_backward)
        y = _MERGES[self.merge](y_forward, y_backward)
        if mask is None and mask_forward is None and not _makes_mask(self.backward, x):
            return y, None
        both = mask_forward if mask_backward is None else mask_backward
        if mask_forward is not None and mask_backward is not None:
            both = _mask_ops.intersect(mask_forward, masks.as_bool(mask_backward), "Bidirectional")
        if isinstance(self.forward, Recurrent) and isinstance(self.backward, Recurrent):
            return y, both
        # A step that is real for only one of them is padding in the result.
        return jax.tree.map(lambda a: ops.fill(a, both)[0], y), both


def _require_same_axes(forward: Array, backward: Array) -> None:
    """Refuse a sequence merged with a result by row, which `merge` would broadcast or not join."""
    if forward.shape[:-1] != backward.shape[:-1]:
        raise ValueError(
            f"Bidirectional: `forward` gives {forward.shape} and `backward` {backward.shape}; they "
            "cannot be merged. Give both the same `return_sequences`, or pass `merge=None`."
        )


def _makes_mask(layer: Callable[..., Pair], x: Array) -> bool:
    """Whether a layer makes a mask where there was none."""
    if isinstance(layer, Recurrent):
        return False
    if not isinstance(layer, nnx.Module):
        return True  # a function cannot be asked without running it
    asked = jax.eval_shape(lambda x: join.call(quiet_copy(layer), x, None, at=_BACKWARD)[1], x)
    return asked is not None


def _run_backward(layer: Callable[..., Pair], x: Array, mask: Mask, given: Given) -> Pair:
    if isinstance(layer, Recurrent):
        with located(_BACKWARD, layer, x):
            return layer(x, mask, reverse=True, **taken(layer, given))
    if "resets" in given:
        raise ValueError(
            "Bidirectional: `resets` need a recurrent layer of jaxmask in the backward direction, "
            f"got {_check.name_of(layer)}."
        )
    # With an explicit full mask, the rank of the mask that comes out shows whether there is a time
    # axis left to flip.
    full = jnp.ones(x.shape[:2], bool) if mask is None else mask
    y, out = join.call(layer, *ops.flip(x, full), at=_BACKWARD, given=given)
    if out is None or out.ndim != 2:
        return y, out
    # Reverse back by the mask it was reversed by: the layer may have made new padding.
    reversed_by = full if out.shape == full.shape else out
    real, _ = ops.flip(masks.as_bool(out), reversed_by)
    both = _mask_ops.intersect(reversed_by, real, "Bidirectional")
    return ops.fill(ops.flip(y, reversed_by)[0], both)
