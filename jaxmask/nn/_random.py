"""Noise modules: a random stream and configuration; the arithmetic is `jaxmask.random`."""

from typing import Any, ClassVar, TypedDict, Unpack

from flax import nnx

from jaxmask import _check, ops, random
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.nn._base import MaskedModule
from jaxmask.nn._options import Rngs, draw


class NoiseOptions(TypedDict, total=False):
    """What all noise modules take; `Dropout` documents each."""

    deterministic: bool
    rng_collection: str
    rngs: nnx.Rngs | nnx.RngStream | None


class _Noise(MaskedModule):
    """In evaluation values pass, with 0 in the padding; in training each call draws a new key."""

    ignores_resets: ClassVar[bool] = True  # noise is keyed by row and real step

    def __init__(
        self,
        *,
        deterministic: bool = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ):
        self.deterministic = deterministic
        self.rng_collection = rng_collection
        stream = rngs[rng_collection] if isinstance(rngs, nnx.Rngs) else rngs
        # Its own stream, so that other layers draw what they would draw without this one.
        self.rngs = nnx.data(None if stream is None else stream.fork())

    @property
    def per_step(self) -> bool:  # type: ignore[override]
        """Whether each step is handled alone, which holds in evaluation."""
        return self.deterministic

    def _draw(self, x: Array, mask: Mask, key: Array, row_ids: ArrayLike | None) -> Pair:
        raise NotImplementedError

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
        return self._draw(x, mask, self._key(rngs), row_ids)

    def _key(self, rngs: Rngs | None) -> Array:
        return draw(self.rngs, rngs, type(self).__name__, self.rng_collection)


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
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> layer = jm.nn.Dropout(0.5, rngs=nnx.Rngs(0))
      >>> y, _ = layer(jnp.ones((1, 2, 50)), jnp.array([[True, False]]))
      >>> sorted(set(y[0, 0].tolist())), y[0, 1].any().item()
      ([0.0, 2.0], False)
    """

    def __init__(self, dropout_rate: float, **options: Unpack[NoiseOptions]):
        super().__init__(**options)
        self.dropout_rate = _check.dropout_rate(dropout_rate, type(self).__name__)

    def _draw(self, x: Array, mask: Mask, key: Array, row_ids: ArrayLike | None) -> Pair:
        return random.dropout(x, mask, key, self.dropout_rate, row_ids=row_ids)


class SpatialDropout(_Noise):
    """Zero whole feature maps of a row at random: `jaxmask.random.spatial_dropout`.

    Args:
      dropout_rate: probability that a feature map is dropped, from 0 to below 1.
      **options: as in `Dropout`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> layer = jm.nn.SpatialDropout(0.5, rngs=nnx.Rngs(0))
      >>> y, _ = layer(jnp.ones((1, 2, 50)))
      >>> bool((y[0, 0] == y[0, 1]).all())
      True
    """

    def __init__(self, dropout_rate: float, **options: Unpack[NoiseOptions]):
        super().__init__(**options)
        self.dropout_rate = _check.dropout_rate(dropout_rate, type(self).__name__)

    def _draw(self, x: Array, mask: Mask, key: Array, row_ids: ArrayLike | None) -> Pair:
        return random.spatial_dropout(x, mask, key, self.dropout_rate, row_ids=row_ids)


class GaussianNoise(_Noise):
    """Add normal noise: `jaxmask.random.gaussian_noise`.

    Args:
      stddev: standard deviation of the noise.
      **options: as in `Dropout`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> layer = jm.nn.GaussianNoise(0.1, rngs=nnx.Rngs(0))
      >>> layer.eval()
      >>> layer(jnp.ones((1, 2)), jnp.array([[True, False]]))[0].tolist()
      [[1.0, 0.0]]
    """

    def __init__(self, stddev: float, **options: Unpack[NoiseOptions]):
        super().__init__(**options)
        _check.static_number(stddev, "GaussianNoise", "stddev")
        if stddev < 0:
            raise ValueError(f"GaussianNoise: `stddev` must be at least 0, got {stddev}.")
        self.stddev = stddev

    def _draw(self, x: Array, mask: Mask, key: Array, row_ids: ArrayLike | None) -> Pair:
        return random.gaussian_noise(x, mask, key, self.stddev, row_ids=row_ids)


class TimeMasking(_Noise):
    """Set spans of real steps, which stay real, to 0: `jaxmask.random.time_masking`.

    Args:
      max_width: the widest span.
      num_masks: number of spans.
      max_ratio: width of the widest span as a fraction of the row.
      **options: as in `Dropout`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> layer = jm.nn.TimeMasking(2, rngs=nnx.Rngs(0))
      >>> y, mask = layer(jnp.ones((1, 3, 4)), jnp.array([[True, True, False]]))
      >>> mask.tolist()
      [[True, True, False]]
    """

    def __init__(
        self,
        max_width: int,
        *,
        num_masks: int = 1,
        max_ratio: float = 1.0,
        **options: Unpack[NoiseOptions],
    ):
        super().__init__(**options)
        _check.static_number(max_ratio, "TimeMasking", "max_ratio")
        if not 0 <= max_ratio <= 1:
            raise ValueError(f"TimeMasking: `max_ratio` must lie within 0 and 1, got {max_ratio}.")
        self.max_width = _check.count(max_width, "TimeMasking", "max_width")
        self.num_masks = _check.count(num_masks, "TimeMasking", "num_masks")
        self.max_ratio = max_ratio

    def _draw(self, x: Array, mask: Mask, key: Array, row_ids: ArrayLike | None) -> Pair:
        options: dict[str, Any] = {"num_masks": self.num_masks, "max_ratio": self.max_ratio}
        return random.time_masking(x, mask, key, self.max_width, row_ids=row_ids, **options)


class FeatureMasking(_Noise):
    """Set bands of features to 0, the same over a row: `jaxmask.random.feature_masking`.

    Args:
      max_width: the widest band.
      num_masks: number of bands.
      **options: as in `Dropout`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> layer = jm.nn.FeatureMasking(2, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((1, 3, 4)), jnp.array([[True, True, False]]))[0].shape
      (1, 3, 4)
    """

    def __init__(self, max_width: int, *, num_masks: int = 1, **options: Unpack[NoiseOptions]):
        super().__init__(**options)
        self.max_width = _check.count(max_width, "FeatureMasking", "max_width")
        self.num_masks = _check.count(num_masks, "FeatureMasking", "num_masks")

    def _draw(self, x: Array, mask: Mask, key: Array, row_ids: ArrayLike | None) -> Pair:
        return random.feature_masking(
            x, mask, key, self.max_width, num_masks=self.num_masks, row_ids=row_ids
        )
