"""Normalisation modules: parameters and statistics; the arithmetic is `jaxmask.norm`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, norm
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.nn._base import (
    NOTHING,
    Configured,
    ParamOptions,
    Weighted,
    check_options,
    check_sizes,
    configured,
)


class ScaleOptions(ParamOptions, total=False):
    """What all normalisation modules with parameters take; `LayerNorm` documents each."""

    epsilon: float
    use_scale: bool
    scale_init: nnx.Initializer
    scale_metadata: Mapping[str, Any]


class NormOptions(ScaleOptions, total=False):
    """What the modules with a bias take."""

    use_bias: bool
    bias_init: nnx.Initializer
    bias_metadata: Mapping[str, Any]


class _Norm(Weighted):
    """The scale, bias and dtype of a normalisation over the last axis."""

    _function: ClassVar[Callable[..., Pair]]

    def __init__(
        self,
        num_features: int,
        *,
        epsilon: float = 1e-6,
        use_scale: bool = True,
        use_bias: bool = True,
        scale_init: nnx.Initializer = nnx.initializers.ones,
        bias_init: nnx.Initializer = nnx.initializers.zeros,
        scale_metadata: Mapping[str, Any] = NOTHING,
        bias_metadata: Mapping[str, Any] = NOTHING,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_sizes(type(self).__name__, num_features=num_features)
        _check.static_number(epsilon, type(self).__name__, "epsilon")
        shape = (num_features,)
        self.scale: nnx.Param | None = nnx.data(None)
        if use_scale:
            self.scale = self._param(scale_init, shape, scale_metadata, rngs, param_dtype)
        self.bias: nnx.Param | None = nnx.data(None)
        if use_bias:
            self.bias = self._param(bias_init, shape, bias_metadata, rngs, param_dtype)
        self.num_features = num_features
        self.epsilon = epsilon
        self.dtype = dtype

    def _inputs(self, x: ArrayLike, mask: Mask) -> tuple[Array, Array | None, Array | None]:
        """`x` in the dtype of the layer, scale and bias."""
        x, _ = _check.pair(x, mask, type(self).__name__)
        self._require_features(x, self.num_features)
        scale = None if self.scale is None else self.scale[...]
        bias = None if self.bias is None else self.bias[...]
        return x if self.dtype is None else x.astype(self.dtype), scale, bias

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Normalise and return `(y, mask)`."""
        x, scale, bias = self._inputs(x, mask)
        return type(self)._function(x, mask, scale, bias, epsilon=self.epsilon)


class LayerNorm(_Norm):
    """Each step by the mean and variance of its features: `jaxmask.norm.layer`.

    Args:
      num_features: size of the last axis of `x`.
      epsilon: added to the variance; default 1e-6.
      use_scale: multiply by a scale `[num_features]`; default True.
      use_bias: add a bias `[num_features]`; default True.
      scale_init: initializer of the scale; default ones.
      bias_init: initializer of the bias; default zeros.
      scale_metadata: metadata of the scale, such as its sharding.
      bias_metadata: metadata of the bias.
      dtype: what `x` is cast to; where None, `y` has the dtype of `x`.
      param_dtype: dtype in which parameters are stored.
      rngs: source of the `params` random stream.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.LayerNorm(2, epsilon=0.0, rngs=nnx.Rngs(0))
      >>> layer(jnp.array([[[1.0, 3.0], [0.0, 0.0]]]), jnp.array([[True, False]]))[0].tolist()
      [[[-1.0, 1.0], [0.0, 0.0]]]

    Agrees with `flax.nnx.LayerNorm`.
    """

    per_step = True
    _function = staticmethod(norm.layer)


class RMSNorm(_Norm):
    """Each step by the mean square of its features: `jaxmask.norm.rms`.

    Args:
      num_features: size of the last axis of `x`.
      **options: as in `LayerNorm`: `epsilon` 1e-6, `use_scale` True, and no bias.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.RMSNorm(2, rngs=nnx.Rngs(0))
      >>> y, _ = layer(jnp.array([[[3.0, 3.0], [0.0, 0.0]]]), jnp.array([[True, False]]))
      >>> y.round(3).tolist()
      [[[1.0, 1.0], [0.0, 0.0]]]

    Agrees with `flax.nnx.RMSNorm`.
    """

    per_step = True

    def __init__(self, num_features: int, **options: Unpack[ScaleOptions]):
        check_options(self, options, ScaleOptions)
        super().__init__(num_features, use_bias=False, **options)

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Normalise each step and return `(y, mask)`."""
        x, scale, _ = self._inputs(x, mask)
        return norm.rms(x, mask, scale, epsilon=self.epsilon)


class GroupNorm(_Norm):
    """Each row by the mean and variance of groups of features: `jaxmask.norm.group`.

    Args:
      num_features: size of the last axis of `x`.
      num_groups: number of groups, a divisor of `num_features`.
      **options: as in `LayerNorm`: `epsilon` 1e-6, `use_scale` True, `use_bias` True.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.GroupNorm(4, 2, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((1, 2, 4)), jnp.array([[True, False]]))[0].shape
      (1, 2, 4)

    Agrees with `flax.nnx.GroupNorm` of the unpadded row.
    """

    def __init__(self, num_features: int, num_groups: int = 32, **options: Unpack[NormOptions]):
        super().__init__(num_features, **options)
        num_groups = _check.count(num_groups, "GroupNorm", "num_groups", least=1)
        if num_features % num_groups:
            raise ValueError(
                f"GroupNorm: `num_groups` must divide the {num_features} features, got "
                f"{num_groups}."
            )
        self.num_groups = num_groups

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Normalise each row and return `(y, mask)`."""
        x, scale, bias = self._inputs(x, mask)
        return norm.group(x, mask, self.num_groups, scale, bias, epsilon=self.epsilon)


class InstanceNorm(_Norm):
    """Each feature of each row by its mean and variance over time: `jaxmask.norm.instance`.

    Args:
      num_features: size of the last axis of `x`.
      **options: as in `LayerNorm`: `epsilon` 1e-6, `use_scale` True, `use_bias` True.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.InstanceNorm(1, epsilon=0.0, rngs=nnx.Rngs(0))
      >>> layer(jnp.array([[[1.0], [3.0], [9.0]]]), jnp.array([[True, True, False]]))[0].tolist()
      [[[-1.0], [1.0], [0.0]]]

    Agrees with `flax.nnx.InstanceNorm` of the unpadded row.
    """

    _function = staticmethod(norm.instance)


@configured
class Standardize(Configured):
    """Inputs with mean 0 and variance 1 over the time of each row: `jaxmask.norm.standardize`.

    Args:
      epsilon: added to the variance.
      variance: also divide by the standard deviation, not only subtract the mean.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> layer = jm.nn.Standardize(epsilon=0.0)
      >>> layer(jnp.array([[1.0, 3.0, 9.0]]), jnp.array([[True, True, False]]))[0].tolist()
      [[-1.0, 1.0, 0.0]]
    """

    _function = staticmethod(norm.standardize)
    _: dataclasses.KW_ONLY
    epsilon: float = 1e-7
    variance: bool = True


class BatchNorm(_Norm):
    """Each feature by its mean and variance over the real steps of all rows: `jaxmask.norm.batch`.

    In training the statistics are those of the batch, and `mean` and `var` keep running averages of
    them, which evaluation uses. A batch without any real step leaves the averages as they are.
    `model.train()` and `model.eval()` switch.

    Args:
      num_features: size of the last axis of `x`.
      use_running_average: normalise by the running averages, and leave them as they are.
      momentum: weight of the old averages in an update.
      axis_name: mapped axis or axes that hold parts of the batch.
      **options: as in `LayerNorm`: `epsilon` 1e-5 (as in Flax), `use_scale` and `use_bias` True.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.BatchNorm(1, momentum=0.5, epsilon=0.0, rngs=nnx.Rngs(0))
      >>> layer(jnp.array([[[1.0], [3.0], [9.0]]]), jnp.array([[True, True, False]]))[0].tolist()
      [[[-1.0], [1.0], [0.0]]]
      >>> layer.mean[...].tolist(), layer.var[...].tolist()
      ([1.0], [1.0])

    Agrees with `flax.nnx.BatchNorm` of the real steps concatenated.
    """

    def __init__(
        self,
        num_features: int,
        *,
        use_running_average: bool = False,
        momentum: float = 0.99,
        axis_name: str | tuple[str, ...] | None = None,
        **options: Unpack[NormOptions],
    ):
        _check.static_number(momentum, "BatchNorm", "momentum")
        options.setdefault("epsilon", 1e-5)
        super().__init__(num_features, **options)
        wide = accumulator(options.get("param_dtype", jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((num_features,), wide))
        self.var = nnx.BatchStat(jnp.ones((num_features,), wide))
        self.use_running_average = use_running_average
        self.momentum = momentum
        self.axis_name = axis_name

    @property
    def per_step(self) -> bool:  # type: ignore[override]
        """Whether each step is normalised alone, which holds with running averages."""
        return self.use_running_average

    def __call__(
        self, x: ArrayLike, mask: Mask = None, *, use_running_average: bool | None = None
    ) -> Pair:
        """Normalise all steps, in training update the averages, and return `(y, mask)`."""
        x, scale, bias = self._inputs(x, mask)
        statistics = norm.BatchStatistics(self.mean[...], self.var[...], 0)
        given = self.use_running_average if use_running_average is None else use_running_average
        if not given:
            new = norm.batch_statistics(x, mask, axis_name=self.axis_name)
            running = norm.update_statistics(statistics, new, momentum=self.momentum)
            self.mean[...], self.var[...] = running.mean, running.variance
            statistics = new
        return norm.batch(x, mask, statistics, scale, bias, epsilon=self.epsilon)
