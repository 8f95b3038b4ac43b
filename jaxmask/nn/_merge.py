"""Merge modules: configuration only; the arithmetic is `jaxmask.merge`."""

from collections.abc import Callable
from typing import Any, ClassVar

from jaxmask import _check, merge
from jaxmask._types import Mask, Pair
from jaxmask.nn import _join as join
from jaxmask.nn._base import Module
from jaxmask.nn._wrapping import Wrapper

_RULES = ("and", "or", "first")
_DOC = """{what}, step by step: `jaxmask.merge.{function}`.

It takes several pairs, so it cannot be a layer of `Sequential`.

Args:
  combine: the rule where masks differ, `"and"`, `"or"` or `"first"`: see `jaxmask.merge`.

Example:
  >>> import jax.numpy as jnp, jaxmask as jm
  >>> mask = jnp.array([[True, False]])
  >>> pairs = (jnp.array([[[5.0], [9.0]]]), mask), (jnp.array([[[2.0], [1.0]]]), mask)
  >>> jm.nn.{name}()(*pairs)[0].tolist()
  {result}
"""


class _Merge(Module):
    """A function of `jaxmask.merge` and its options."""

    _function: ClassVar[Callable[..., Pair]]

    def __init__(self, *, combine: str = "and"):
        _check.choice(combine, _RULES, type(self).__name__, "combine")
        self.combine = combine

    def __call__(self, *pairs: Pair) -> Pair:
        """Merge the pairs and return `(y, mask)`."""
        return type(self)._function(*pairs, combine=self.combine)

    def compute_mask(self, *pairs: Pair) -> Mask:
        """The mask that calling the module gives."""
        return self(*pairs)[1]


def _module(name: str, function: Callable[..., Pair], what: str, result: str) -> type[_Merge]:
    doc = _DOC.format(name=name, function=function.__name__, what=what, result=result)
    members = {"__doc__": doc, "__module__": __name__, "_function": staticmethod(function)}
    return type(name, (_Merge,), members)


Add = _module("Add", merge.add, "The sum of pairs", "[[[7.0], [0.0]]]")
Subtract = _module(
    "Subtract", merge.subtract, "The first of two pairs less the second", "[[[3.0], [0.0]]]"
)
Multiply = _module("Multiply", merge.multiply, "The product of pairs", "[[[10.0], [0.0]]]")
Average = _module(
    "Average", merge.average, "The average of the pairs that have the step", "[[[3.5], [0.0]]]"
)
Maximum = _module(
    "Maximum", merge.maximum, "The largest of the pairs that have the step", "[[[5.0], [0.0]]]"
)
Minimum = _module(
    "Minimum", merge.minimum, "The smallest of the pairs that have the step", "[[[2.0], [0.0]]]"
)
Concatenate = _module(
    "Concatenate",
    merge.concatenate,
    "The features of pairs, one after another",
    "[[[5.0, 2.0], [0.0, 0.0]]]",
)


class Dot(_Merge):
    """The dot product of the features of two pairs, step by step: `jaxmask.merge.dot`.

    Args:
      normalize: the cosine of the angle instead.
      combine: as in `Add`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> pair = jnp.array([[[3.0, 4.0]]]), jnp.array([[True]])
      >>> jm.nn.Dot()(pair, pair)[0].tolist()
      [[[25.0]]]
    """

    def __init__(self, *, normalize: bool = False, combine: str = "and"):
        super().__init__(combine=combine)
        self.normalize = normalize

    def __call__(self, *pairs: Pair) -> Pair:
        """Multiply the two pairs and return `(y, mask)`."""
        return merge.dot(*pairs, combine=self.combine, normalize=self.normalize)


class Residual(Wrapper):
    """A layer and a path around it: y = x + layer(x).

    It streams (`initial_carry` and `run`) if the layer does.

    Args:
      layer: any layer that `Sequential` takes, whose result has the shape and dtype of `x`.
      combine: the rule where the layer's mask differs from its input's, `"and"`, `"or"` or
        `"first"`: see `jaxmask.merge`.

    Raises:
      ValueError: if `combine` is unknown; on call, if the layer changes the shape.
      MaskError: on call, if the layer gets a mask and does not support masks.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> layer = jm.nn.Residual(jnp.square)
      >>> layer(jnp.array([[3.0, 9.0]]), jnp.array([[True, False]]))[0].tolist()
      [[12.0, 0.0]]

    Source: He et al., 2016, arxiv.org/abs/1512.03385.
    """

    def __init__(self, layer: Callable[..., Any], *, combine: str = "and"):
        join.require_layer(layer, "Residual: `layer`")
        _check.choice(combine, _RULES, "Residual", "combine")
        self.layer = layer
        self.combine = combine

    def _after(self, x: Any, mask: Mask, pair: Pair) -> Pair:
        return merge.add((x, mask), pair, combine=self.combine)
