"""Noise modules: a random stream and configuration; the arithmetic is `jaxmask.random`."""

import dataclasses
import math
from typing import Any, ClassVar

from flax import nnx

from jaxmask import _check, ops, random
from jaxmask._types import ArrayLike, Mask, Pair
from jaxmask.nn._base import Configured, checked, configured
from jaxmask.nn._options import Rngs, draw


def _within(value: Any, where: str, name: str, low: float, high: float) -> float:
    _check.static_number(value, where, name)
    if not low <= value <= high:
        limits = f"at least {low}" if high == math.inf else f"from {low} to {high}"
        raise ValueError(f"{where}: `{name}` must be {limits}, got {value}.")
    return value


@configured
class _Noise(Configured):
    """In evaluation values pass, with 0 in the padding; in training each call draws a new key."""

    ignores_resets: ClassVar[bool] = True  # noise is keyed by row and real step
    _of_call = ("deterministic", "rng_collection", "rngs")
    _: dataclasses.KW_ONLY
    deterministic: bool = False
    rng_collection: str = "dropout"
    rngs: nnx.Rngs | nnx.RngStream | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.rngs
        stream = given[self.rng_collection] if isinstance(given, nnx.Rngs) else given
        # Its own stream, so that other layers draw what they would draw without this one.
        self.rngs = nnx.data(None if stream is None else stream.fork())

    @property
    def per_step(self) -> bool:  # type: ignore[override]
        """Whether each step is handled alone, which holds in evaluation."""
        return self.deterministic

    def __call__(
        self,
        x: ArrayLike,
        mask: Mask = None,
        *,
        deterministic: bool | None = None,
        rngs: Rngs | None = None,
        row_ids: ArrayLike | None = None,
    ) -> Pair:
        """Draw noise in training and return `(y, mask)`.

        Args:
          x: as in the function of `jaxmask.random`.
          mask: boolean, or `Segments`, or None.
          deterministic: True passes values on; what the module says where None.
          rngs: random streams, one stream, or a key, in place of the module's own stream.
          row_ids: `[batch]`, integer: the id of each row, its index in the batch where None.
        """
        if self.deterministic if deterministic is None else deterministic:
            return ops.fill(x, mask)
        x, mask = _check.pair(x, mask, type(self).__name__)
        key = draw(self.rngs, rngs, type(self).__name__, self.rng_collection)
        return self._run(x, mask, key, row_ids=row_ids)


@configured
class Dropout(_Noise):
    """Zero features at random, step by step: `jaxmask.random.dropout`.

    Unlike Flax's, its noise is keyed by row and real step, so padding does not change it.

    Args:
      dropout_rate: probability that a value is dropped, from 0 to below 1.
      deterministic: pass values on; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream.
      rngs: source of the random stream.

    Raises:
      ValueError: if `dropout_rate` is not from 0 to below 1; on call, if there is no stream, or the
        stream of a closed-over model cannot advance.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.Dropout(0.5, rngs=nnx.Rngs(0))
      >>> y, _ = layer(jnp.ones((1, 2, 50)), jnp.array([[True, False]]))
      >>> sorted(set(y[0, 0].tolist())), y[0, 1].any().item()
      ([0.0, 2.0], False)
    """

    _function = staticmethod(random.dropout)
    dropout_rate: float = checked(_check.dropout_rate)


@configured
class SpatialDropout(_Noise):
    """Zero whole feature maps of a row at random: `jaxmask.random.spatial_dropout`.

    Args:
      dropout_rate: probability that a feature map is dropped, from 0 to below 1.
      deterministic, rng_collection, rngs: as in `Dropout`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.SpatialDropout(0.5, rngs=nnx.Rngs(0))
      >>> y, _ = layer(jnp.ones((1, 2, 50)))
      >>> bool((y[0, 0] == y[0, 1]).all())
      True
    """

    _function = staticmethod(random.spatial_dropout)
    dropout_rate: float = checked(_check.dropout_rate)


@configured
class GaussianNoise(_Noise):
    """Add normal noise: `jaxmask.random.gaussian_noise`.

    Args:
      stddev: standard deviation of the noise.
      deterministic, rng_collection, rngs: as in `Dropout`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.GaussianNoise(0.1, rngs=nnx.Rngs(0))
      >>> layer.eval()
      >>> layer(jnp.ones((1, 2)), jnp.array([[True, False]]))[0].tolist()
      [[1.0, 0.0]]
    """

    _function = staticmethod(random.gaussian_noise)
    stddev: float = checked(_within, 0, math.inf)


@configured
class TimeMasking(_Noise):
    """Set spans of real steps, which stay real, to 0: `jaxmask.random.time_masking`.

    Args:
      max_width: the widest span.
      num_masks: number of spans.
      max_ratio: width of the widest span as a fraction of the row.
      deterministic, rng_collection, rngs: as in `Dropout`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.TimeMasking(2, rngs=nnx.Rngs(0))
      >>> y, mask = layer(jnp.ones((1, 3, 4)), jnp.array([[True, True, False]]))
      >>> mask.tolist()
      [[True, True, False]]
    """

    _function = staticmethod(random.time_masking)
    max_width: int = checked(_check.count)
    num_masks: int = checked(_check.count, default=1, kw_only=True)
    max_ratio: float = checked(_within, 0, 1, default=1.0, kw_only=True)


@configured
class TimeWarp(_Noise):
    """Stretch one part of each row and squeeze the other: `jaxmask.random.time_warp`.

    Args:
      max_distance: how far a step moves at most.
      deterministic, rng_collection, rngs: as in `Dropout`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.TimeWarp(2, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((1, 9, 4)), jnp.arange(9)[None] < 7)[0].shape
      (1, 9, 4)
    """

    _function = staticmethod(random.time_warp)
    max_distance: int = checked(_check.count)


@configured
class FeatureMasking(_Noise):
    """Set bands of features to 0, the same over a row: `jaxmask.random.feature_masking`.

    Args:
      max_width: the widest band.
      num_masks: number of bands.
      deterministic, rng_collection, rngs: as in `Dropout`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.FeatureMasking(2, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((1, 3, 4)), jnp.array([[True, True, False]]))[0].shape
      (1, 3, 4)
    """

    _function = staticmethod(random.feature_masking)
    max_width: int = checked(_check.count)
    num_masks: int = checked(_check.count, default=1, kw_only=True)
