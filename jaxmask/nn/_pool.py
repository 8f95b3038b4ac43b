"""Pooling modules: from the steps of a row to one value; the arithmetic is `jaxmask.pool`."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, ops, pool
from jaxmask._types import ArrayLike, Mask, Pair
from jaxmask.nn._base import MaskedModule


class _Pool(MaskedModule):
    _function: ClassVar[Callable[[ArrayLike, Mask], Pair]]

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Pool the real steps and return `(y, row_mask)`."""
        return type(self)._function(x, mask)


class GlobalMeanPool(_Pool):
    """Average of the real steps of each row: `jaxmask.pool.mean`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[[2.0], [4.0], [9.0]]]), jnp.array([[True, True, False]])
      >>> jm.nn.GlobalMeanPool()(x, mask)[0].tolist()
      [[3.0]]
    """

    _function = staticmethod(pool.mean)


class GlobalMaxPool(_Pool):
    """Largest value of the real steps of each row: `jaxmask.pool.max`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[[2.0], [4.0], [9.0]]]), jnp.array([[True, True, False]])
      >>> jm.nn.GlobalMaxPool()(x, mask)[0].tolist()
      [[4.0]]
    """

    _function = staticmethod(pool.max)


class GlobalMinPool(_Pool):
    """Smallest value of the real steps of each row: `jaxmask.pool.min`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[[2.0], [4.0], [0.0]]]), jnp.array([[True, True, False]])
      >>> jm.nn.GlobalMinPool()(x, mask)[0].tolist()
      [[2.0]]
    """

    _function = staticmethod(pool.min)


class GlobalSumPool(_Pool):
    """Sum of the real steps of each row: `jaxmask.pool.sum`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[[2.0], [4.0], [9.0]]]), jnp.array([[True, True, False]])
      >>> jm.nn.GlobalSumPool()(x, mask)[0].tolist()
      [[6.0]]
    """

    _function = staticmethod(pool.sum)


class FirstStep(_Pool):
    """First real step of each row: `jaxmask.pool.first`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.nn.FirstStep()(jnp.array([[0, 7, 8]]), jnp.array([[False, True, True]]))[0].tolist()
      [7]
    """

    _function = staticmethod(pool.first)


class LastStep(_Pool):
    """Last real step of each row: `jaxmask.pool.last`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.nn.LastStep()(jnp.array([[7, 8, 0]]), jnp.array([[True, True, False]]))[0].tolist()
      [8]
    """

    _function = staticmethod(pool.last)


class AttentionPool(MaskedModule):
    """Average of the real steps by learned weights; the arithmetic is `jaxmask.pool.attend`.

        scores[b, t] = tanh(x[b, t] @ kernel + bias) @ query
        y[b] = sum_t softmax(scores[b])[t] x[b, t]   over the real steps

    Shapes: `x [batch, time, in_features]` and mask `[batch, time]` to `y [batch, in_features]` and
    a row mask `[batch]`.

    Args:
      in_features: size of the last axis of `x`.
      hidden_features: size of the hidden layer; `in_features` where None.
      param_dtype: dtype in which parameters are stored.
      rngs: source of the `params` random stream.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> layer = jm.nn.AttentionPool(3, rngs=nnx.Rngs(0))
      >>> y, row_mask = layer(jnp.ones((2, 5, 3)), jnp.zeros((2, 5), bool))
      >>> y.tolist(), row_mask.tolist()
      ([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [False, False])

    Source: Yang et al., 2016, Hierarchical attention networks, doi:10.18653/v1/N16-1174.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        *,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        hidden = in_features if hidden_features is None else hidden_features
        options: dict[str, Any] = {"param_dtype": param_dtype, "rngs": rngs}
        self.hidden = nnx.Linear(in_features, hidden, **options)
        self.query = nnx.Linear(hidden, 1, use_bias=False, **options)

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Score and average the real steps and return `(y, row_mask)`."""
        x, mask = _check.pair(x, mask, "AttentionPool", over_time=True)
        safe, _ = ops.fill(x, mask)
        scores = self.query(jnp.tanh(self.hidden(safe)))
        return pool.attend(safe, mask, jnp.squeeze(scores, -1))
