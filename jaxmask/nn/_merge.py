"""Merge modules: configuration only; the arithmetic is `jaxmask.merge`."""

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

from flax import nnx

from jaxmask import merge
from jaxmask._types import Mask, Pair, PyTree
from jaxmask.nn import _join as join
from jaxmask.nn import _streaming as streaming
from jaxmask.nn._base import MaskedModule
from jaxmask.nn._options import CallOptions, opened


class _Merge(nnx.Module):
    """A module of several pairs, so it stands outside `Sequential`.

    Args:
      combine: the rule where masks differ, `"and"`, `"or"` or `"first"`: see `jaxmask.merge`.
    """

    _function: ClassVar[Callable[..., Pair]]

    def __init__(self, *, combine: str = "and"):
        self.combine = combine

    def __call__(self, *pairs: Pair) -> Pair:
        """Merge the pairs and return `(y, mask)`."""
        return type(self)._function(*pairs, combine=self.combine)

    def compute_mask(self, *pairs: Pair) -> Mask:
        """The mask that calling the module gives."""
        return self(*pairs)[1]


class Add(_Merge):
    """The sum of pairs, step by step: `jaxmask.merge.add`.

    Args:
      combine: the rule where masks differ, `"and"`, `"or"` or `"first"`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> pair = jnp.array([[1, 9]]), jnp.array([[True, False]])
      >>> jm.nn.Add()(pair, pair)[0].tolist()
      [[2, 0]]
    """

    _function = staticmethod(merge.add)


class Subtract(_Merge):
    """The first of two pairs less the second, step by step: `jaxmask.merge.subtract`.

    Args:
      combine: the rule where masks differ, `"and"`, `"or"` or `"first"`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, False]])
      >>> jm.nn.Subtract()((jnp.array([[5, 9]]), mask), (jnp.array([[2, 1]]), mask))[0].tolist()
      [[3, 0]]
    """

    _function = staticmethod(merge.subtract)


class Multiply(_Merge):
    """The product of pairs, step by step: `jaxmask.merge.multiply`.

    Args:
      combine: the rule where masks differ, `"and"`, `"or"` or `"first"`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> pair = jnp.array([[3, 9]]), jnp.array([[True, False]])
      >>> jm.nn.Multiply()(pair, pair)[0].tolist()
      [[9, 0]]
    """

    _function = staticmethod(merge.multiply)


class Average(_Merge):
    """The average of the pairs that have the step: `jaxmask.merge.average`.

    Args:
      combine: the rule where masks differ, `"and"`, `"or"` or `"first"`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> one = jnp.array([[1.0, 2.0]]), None
      >>> two = jnp.array([[5.0, 9.0]]), jnp.array([[True, False]])
      >>> jm.nn.Average(combine="or")(one, two)[0].tolist()
      [[3.0, 2.0]]
    """

    _function = staticmethod(merge.average)


class Maximum(_Merge):
    """The largest of the pairs that have the step: `jaxmask.merge.maximum`.

    Args:
      combine: the rule where masks differ, `"and"`, `"or"` or `"first"`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, False]])
      >>> jm.nn.Maximum()((jnp.array([[5, 9]]), mask), (jnp.array([[2, 1]]), mask))[0].tolist()
      [[5, 0]]
    """

    _function = staticmethod(merge.maximum)


class Minimum(_Merge):
    """The smallest of the pairs that have the step: `jaxmask.merge.minimum`.

    Args:
      combine: the rule where masks differ, `"and"`, `"or"` or `"first"`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, False]])
      >>> jm.nn.Minimum()((jnp.array([[5, 9]]), mask), (jnp.array([[2, 1]]), mask))[0].tolist()
      [[2, 0]]
    """

    _function = staticmethod(merge.minimum)


class Dot(_Merge):
    """The dot product of the features of two pairs, step by step: `jaxmask.merge.dot`.

    Args:
      normalize: the cosine of the angle instead.
      combine: the rule where masks differ, `"and"`, `"or"` or `"first"`.

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


class Concatenate(_Merge):
    """The features of pairs behind each other, step by step: `jaxmask.merge.concatenate`.

    Args:
      combine: the rule where masks differ, `"and"`, `"or"` or `"first"`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> pair = jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool)
      >>> jm.nn.Concatenate()(pair, pair)[0].shape
      (2, 3, 8)
    """

    _function = staticmethod(merge.concatenate)


class Residual(MaskedModule):
    """A layer and a path around it: y = x + layer(x).

    It streams (`initial_carry` and `run`) if the layer does.

    Args:
      layer: any layer that `Sequential` takes, whose result has the shape and dtype of `x`.
      combine: the rule where the layer's mask differs from its input's, `"and"`, `"or"` or
        `"first"`: see `jaxmask.merge`.

    Raises:
      TypeError: on call, if the layer changes the dtype.
      ValueError: on call, if the layer changes the shape.
      MaskError: on call, if the layer meets a mask and does not know masks.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> layer = jm.nn.Residual(jnp.square)
      >>> layer(jnp.array([[3.0, 9.0]]), jnp.array([[True, False]]))[0].tolist()
      [[12.0, 0.0]]

    Source: He et al., 2016, arxiv.org/abs/1512.03385.
    """

    def __init__(self, layer: Callable[..., Any], *, combine: str = "and"):
        self.layer = layer
        self.combine = combine

    def __call__(self, x: Any, mask: Mask = None, **options: Unpack[CallOptions]) -> Pair:
        """Run the layer, add its input and return `(y, mask)`; options as in `Sequential`."""
        model, given = opened(self, options)
        return self._added(x, mask, join.call(model.layer, x, mask, at="Residual", given=given))

    def initial_carry(self, batch: int, **options: Unpack[CallOptions]) -> PyTree:
        """What `run` starts from: the carry of the layer."""
        model, given = opened(self, options)
        return streaming.initial_carry(model.layer, batch, at="Residual", given=given)

    def run(
        self, carry: PyTree, x: Any, mask: Mask = None, **options: Unpack[CallOptions]
    ) -> tuple[PyTree, Pair]:
        """Run the next chunk of steps and return `(carry, (y, mask))`."""
        model, given = opened(self, options)
        carry, pair = streaming.run(model.layer, carry, x, mask, at="Residual", given=given)
        return carry, self._added(x, mask, pair)

    def _added(self, x: Any, mask: Mask, pair: Pair) -> Pair:
        return merge.add((x, mask), pair, combine=self.combine)
