"""Pooling modules: from the steps of a row to one value; the arithmetic is `jaxmask.pool`."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, ops, pool
from jaxmask._types import ArrayLike, Mask, Pair
from jaxmask.nn._base import MaskedModule, check_sizes

_DOC = """{what} of each row: `jaxmask.pool.{function}`.

Example:
  >>> import jax.numpy as jnp, jaxmask as jm
  >>> x, mask = jnp.array([[[2.0], [4.0], [9.0]]]), jnp.array([[True, True, False]])
  >>> jm.nn.{name}()(x, mask)[0].tolist()
  [[{result}]]
"""


class _Pool(MaskedModule):
    _function: ClassVar[Callable[[ArrayLike, Mask], Pair]]

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Pool the real steps and return `(y, row_mask)`."""
        return type(self)._function(x, mask)


def _module(
    name: str, function: Callable[[ArrayLike, Mask], Pair], what: str, result: float
) -> type[_Pool]:
    doc = _DOC.format(name=name, function=function.__name__, what=what, result=result)
    members = {"__doc__": doc, "__module__": __name__, "_function": staticmethod(function)}
    return type(name, (_Pool,), members)


GlobalMeanPool = _module("GlobalMeanPool", pool.mean, "Average of the real steps", 3.0)
GlobalMaxPool = _module("GlobalMaxPool", pool.max, "Largest value of the real steps", 4.0)
GlobalMinPool = _module("GlobalMinPool", pool.min, "Smallest value of the real steps", 2.0)
GlobalSumPool = _module("GlobalSumPool", pool.sum, "Sum of the real steps", 6.0)
GlobalStdPool = _module("GlobalStdPool", pool.std, "Standard deviation of the real steps", 1.0)
GlobalVarPool = _module("GlobalVarPool", pool.var, "Variance of the real steps", 1.0)
FirstStep = _module("FirstStep", pool.first, "First real step", 2.0)
LastStep = _module("LastStep", pool.last, "Last real step", 4.0)


class StatisticsPool(_Pool):
    """Mean and standard deviation of the real steps of each row: `jaxmask.pool.statistics`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[[2.0], [4.0], [9.0]]]), jnp.array([[True, True, False]])
      >>> jm.nn.StatisticsPool()(x, mask)[0].tolist()
      [[3.0, 1.0]]
    """

    _function = staticmethod(pool.statistics)


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
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
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
        check_sizes("AttentionPool", in_features=in_features, hidden_features=hidden)
        options: dict[str, Any] = {"param_dtype": param_dtype, "rngs": rngs}
        self.hidden = nnx.Linear(in_features, hidden, **options)
        self.query = nnx.Linear(hidden, 1, use_bias=False, **options)

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Score and average the real steps and return `(y, row_mask)`."""
        x, mask = _check.pair(x, mask, "AttentionPool", over_time=True)
        shape = (*x.shape[:2], self.hidden.in_features)
        _check.shape(x, shape, "[batch, time, in_features]", "AttentionPool", "x")
        safe, _ = ops.fill(x, mask)
        scores = self.query(jnp.tanh(self.hidden(safe)))
        return pool.attend(safe, mask, jnp.squeeze(scores, -1))
