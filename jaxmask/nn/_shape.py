"""Shape modules: configuration only; the arithmetic is `jaxmask.shape`."""

from collections.abc import Sequence

from jaxmask import _check, ops, shape
from jaxmask.nn._base import Configured, checked, configured


def _as_tuple(value: Sequence[int], where: str, name: str) -> tuple[int, ...]:
    if not isinstance(value, Sequence):
        raise TypeError(f"{where}: `{name}` must be a tuple of ints, got {_check.kind_of(value)}.")
    return tuple(value)


@configured
class Flatten(Configured):
    """All features of a row one after another along time: `jaxmask.shape.flatten`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.nn.Flatten()(jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool))
      >>> y.shape, mask.shape
      ((2, 12), (2, 12))
    """

    _function = staticmethod(shape.flatten)


@configured
class Reshape(Configured):
    """Another shape for the features of each step: `jaxmask.shape.reshape`.

    Args:
      feature_shape: the new feature axes; one may be -1.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.nn.Reshape((2, -1))(jnp.ones((2, 3, 8)), jnp.ones((2, 3), bool))[0].shape
      (2, 3, 2, 4)
    """

    per_step = True
    _function = staticmethod(shape.reshape)
    feature_shape: Sequence[int] = checked(_as_tuple)


@configured
class Permute(Configured):
    """Another order of the feature axes: `jaxmask.shape.permute`.

    Args:
      axes: all axes in their new order, batch and time first.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.nn.Permute((0, 1, 3, 2))(jnp.ones((2, 3, 4, 5)), jnp.ones((2, 3), bool))[0].shape
      (2, 3, 5, 4)
    """

    per_step = True
    _function = staticmethod(shape.permute)
    axes: Sequence[int] = checked(_as_tuple)


@configured
class Repeat(Configured):
    """Each row as `time` equal steps: `jaxmask.shape.repeat`, Keras's `RepeatVector`.

    Args:
      time: number of steps.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.nn.Repeat(3)(jnp.ones((2, 4)), jnp.array([True, False]))
      >>> y.shape, mask.shape
      ((2, 3, 4), (2, 3))
    """

    _function = staticmethod(shape.repeat)
    time: int = checked(_check.count)


@configured
class Upsample(Configured):
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
    _function = staticmethod(shape.upsample)
    factor: int = checked(_check.count, least=1)


@configured
class Downsample(Configured):
    """Every `factor`-th step of each row: `jaxmask.shape.downsample`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.nn.Downsample(2)(jnp.array([[1, 2, 3]]))[0].tolist()
      [[1, 3]]
    """

    _function = staticmethod(shape.downsample)
    factor: int = checked(_check.count, least=1)


@configured
class Pad(Configured):
    """More padding at the ends of the array: `jaxmask.shape.pad`.

    Args:
      width: `(left, right)` numbers of steps.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.nn.Pad((1, 0))(jnp.ones((1, 2, 3)))
      >>> y.shape, mask.tolist()
      ((1, 3, 3), [[False, True, True]])
    """

    _function = staticmethod(shape.pad)
    width: tuple[int, int] = checked(_check.two_counts, "left, right")


@configured
class Crop(Configured):
    """Drop the first and last real steps of each row: `jaxmask.shape.crop`.

    Args:
      width: `(left, right)` numbers of real steps.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.nn.Crop((1, 0))(jnp.array([[1, 2, 9]]), jnp.array([[True, True, False]]))
      >>> y.tolist(), mask.tolist()
      ([[2, 0]], [[True, False]])
    """

    _function = staticmethod(shape.crop)
    width: tuple[int, int] = checked(_check.two_counts, "left, right")


@configured
class Flip(Configured):
    """Each row reversed within its real steps: `jaxmask.ops.flip`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.nn.Flip()(jnp.array([[1, 2, 9]]), jnp.array([[True, True, False]]))[0].tolist()
      [[2, 1, 0]]
    """

    _function = staticmethod(ops.flip)
