"""Shape modules: configuration only; the arithmetic is `jaxmask.shape`."""

from collections.abc import Sequence

from jaxmask import _check, ops, shape
from jaxmask._types import ArrayLike, Mask, Pair
from jaxmask.nn._base import MaskedModule


class Flatten(MaskedModule):
    """All features of a row one after another along time: `jaxmask.shape.flatten`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.nn.Flatten()(jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool))
      >>> y.shape, mask.shape
      ((2, 12), (2, 12))
    """

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Flatten and return `(y, mask)`."""
        return shape.flatten(x, mask)


class Reshape(MaskedModule):
    """Another shape for the features of each step: `jaxmask.shape.reshape`.

    Args:
      feature_shape: the new feature axes; one may be -1.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.nn.Reshape((2, -1))(jnp.ones((2, 3, 8)), jnp.ones((2, 3), bool))[0].shape
      (2, 3, 2, 4)
    """

    per_step = True

    def __init__(self, feature_shape: Sequence[int]):
        self.feature_shape = tuple(feature_shape)

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Reshape the features and return `(y, mask)`."""
        return shape.reshape(x, mask, self.feature_shape)


class Permute(MaskedModule):
    """Another order of the feature axes: `jaxmask.shape.permute`.

    Args:
      axes: all axes in their new order, batch and time first.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.nn.Permute((0, 1, 3, 2))(jnp.ones((2, 3, 4, 5)), jnp.ones((2, 3), bool))[0].shape
      (2, 3, 5, 4)
    """

    per_step = True

    def __init__(self, axes: Sequence[int]):
        self.axes = tuple(axes)

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Permute the features and return `(y, mask)`."""
        return shape.permute(x, mask, self.axes)


class Repeat(MaskedModule):
    """Each row as `time` equal steps: `jaxmask.shape.repeat`, Keras's `RepeatVector`.

    Args:
      time: number of steps.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.nn.Repeat(3)(jnp.ones((2, 4)), jnp.array([True, False]))
      >>> y.shape, mask.shape
      ((2, 3, 4), (2, 3))
    """

    def __init__(self, time: int):
        self.time = _check.count(time, "Repeat", "time")

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Repeat the rows and return `(y, mask)`."""
        return shape.repeat(x, mask, self.time)


class Upsample(MaskedModule):
    """Each step `factor` times: `jaxmask.shape.upsample`.

    Args:
      factor: how often, at least 1.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.nn.Upsample(2)(jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool))
      >>> y.shape, mask.shape
      ((2, 6, 4), (2, 6))
    """

    per_step = True

    def __init__(self, factor: int):
        self.factor = _check.count(factor, "Upsample", "factor", least=1)

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Repeat the steps and return `(y, mask)`."""
        return shape.upsample(x, mask, self.factor)


class Downsample(MaskedModule):
    """Every `factor`-th step of each row: `jaxmask.shape.downsample`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.nn.Downsample(2)(jnp.array([[1, 2, 3]]))[0].tolist()
      [[1, 3]]
    """

    def __init__(self, factor: int):
        self.factor = _check.count(factor, "Downsample", "factor", least=1)

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Keep every `factor`-th step and return `(y, mask)`."""
        return shape.downsample(x, mask, self.factor)


class Pad(MaskedModule):
    """More padding at the ends of the array: `jaxmask.shape.pad`.

    Args:
      width: `(left, right)` numbers of steps.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.nn.Pad((1, 0))(jnp.ones((1, 2, 3)))
      >>> y.shape, mask.tolist()
      ((1, 3, 3), [[False, True, True]])
    """

    def __init__(self, width: tuple[int, int]):
        self.width = _check.two_counts(width, "Pad", "width", "left, right")

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Pad and return `(y, mask)`."""
        return shape.pad(x, mask, self.width)


class Crop(MaskedModule):
    """Drop the first and last real steps of each row: `jaxmask.shape.crop`.

    Args:
      width: `(left, right)` numbers of real steps.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.nn.Crop((1, 0))(jnp.array([[1, 2, 9]]), jnp.array([[True, True, False]]))
      >>> y.tolist(), mask.tolist()
      ([[2, 0]], [[True, False]])
    """

    def __init__(self, width: tuple[int, int]):
        self.width = _check.two_counts(width, "Crop", "width", "left, right")

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Crop and return `(y, mask)`."""
        return shape.crop(x, mask, self.width)


class Flip(MaskedModule):
    """Each row reversed within its real steps: `jaxmask.ops.flip`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.nn.Flip()(jnp.array([[1, 2, 9]]), jnp.array([[True, True, False]]))[0].tolist()
      [[2, 1, 0]]
    """

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Reverse the rows and return `(y, mask)`."""
        return ops.flip(x, mask)
