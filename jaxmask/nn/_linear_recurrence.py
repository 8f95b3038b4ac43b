"""Linear recurrences with gates that read only the input, by `recurrent.linear`."""

from typing import ClassVar, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, ops, recurrent
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.nn._base import ParamOptions, check_options, check_sizes
from jaxmask.nn._recurrent import Recurrent


class LinearOptions(ParamOptions, total=False):
    """What all gated linear recurrences take; `MinGRU` documents each."""

    return_sequences: bool
    reverse: bool


class _Linear(Recurrent):
    """A layer that computes the `a` and `b` of `h = a h + b` from each step alone."""

    in_features: int
    hidden_features: int
    _gates: ClassVar[tuple[str, ...]]
    update: nnx.Linear
    candidate: nnx.Linear
    forget: nnx.Linear
    input: nnx.Linear
    recurrence: nnx.Linear

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        return_sequences: bool = True,
        reverse: bool = False,
        **options: Unpack[ParamOptions],
    ):
        sizes = {"in_features": in_features, "hidden_features": hidden_features}
        check_sizes(type(self).__name__, **sizes)
        check_options(self, options, ParamOptions)
        for gate in self._gates:
            setattr(self, gate, nnx.Linear(in_features, hidden_features, **options))
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.return_sequences = return_sequences
        self.reverse = _check.flag(reverse, type(self).__name__, "reverse")

    def initial_carry(self, batch: int) -> Array:
        """Zeros, float32."""
        return jnp.zeros(
            (_check.rows(batch, f"{type(self).__name__}.initial_carry"), self.hidden_features)
        )

    def _coefficients(self, x: Array) -> tuple[Array, Array]:
        """`(a, b)`, each `[batch, time, hidden]`."""
        raise NotImplementedError

    def _run(
        self, carry: ArrayLike, x: ArrayLike, mask: Mask, reverse: bool, resets: ArrayLike | None
    ) -> tuple[Array, Pair]:
        where = type(self).__name__
        x, mask = _check.pair(x, mask, where, over_time=True)
        _check.floating(x, where)
        expected = (*x.shape[:2], self.in_features)
        _check.shape(x, expected, "[batch, time, in_features]", where, "x")
        a, b = self._coefficients(ops.fill(x, mask)[0])
        state, (y, mask) = recurrent.linear(b, mask, a, carry, reverse=reverse, resets=resets)
        return state, (y.astype(x.dtype), mask)


class MinGRU(_Linear):
    """Gated recurrent unit whose gates do not read the state, so that all steps run at once.

        z = sigmoid(x[t] @ w_z + b_z)
        h = (1 - z) * h + z * (x[t] @ w_h + b_h)     where mask[t]; elsewhere h stays

    Mask class: any. The paper's first form, without its logarithms.

    Shapes: `x [batch, time, in_features]` and mask `[batch, time]` to
    `y [batch, time, hidden_features]` and the same mask; with `return_sequences=False` to
    `last [batch, hidden_features]` and a row mask `[batch]`.

    Args:
      in_features: size of the last axis of `x`.
      hidden_features: size of the last axis of `y`.
      return_sequences: return every step, else only the last one computed.
      reverse: from the last real step of each row to the first; outputs stay at their own steps.
      dtype: what the gates are computed in; that of `x` and the parameters where None.
      param_dtype: dtype in which parameters are stored.
      rngs: source of the `params` random stream.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.MinGRU(3, 4, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool))[0].shape
      (2, 5, 4)

    Source: Feng et al., 2024, Were RNNs all we needed?, arXiv:2410.01201.
    """

    _gates = ("update", "candidate")

    def _coefficients(self, x: Array) -> tuple[Array, Array]:
        score = self.update(x)
        return jax.nn.sigmoid(-score), jax.nn.sigmoid(score) * self.candidate(x)


class MinLSTM(_Linear):
    """Long short-term memory whose gates do not read the state, so that all steps run at once.

        f, i = sigmoid(x[t] @ w_f + b_f), sigmoid(x[t] @ w_i + b_i)
        h = (f h + i * (x[t] @ w_h + b_h)) / (f + i)     where mask[t]; elsewhere h stays

    Mask class: any. The paper's first form, without its logarithms.

    Shapes as in `MinGRU`.

    Args:
      in_features: size of the last axis of `x`.
      hidden_features: size of the last axis of `y`.
      **options: as in `MinGRU`: `return_sequences` True, `reverse` False, `param_dtype` float32.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.MinLSTM(3, 4, return_sequences=False, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool))[0].shape
      (2, 4)

    Source: Feng et al., 2024, Were RNNs all we needed?, arXiv:2410.01201.
    """

    _gates = ("forget", "input", "candidate")

    def _coefficients(self, x: Array) -> tuple[Array, Array]:
        # f / (f + i) by the difference of logarithms: both gates may round to 0.
        lead = jax.nn.log_sigmoid(self.forget(x)) - jax.nn.log_sigmoid(self.input(x))
        return jax.nn.sigmoid(lead), jax.nn.sigmoid(-lead) * self.candidate(x)


class RGLRU(_Linear):
    """Real-gated linear recurrent unit, the recurrence of Griffin and RecurrentGemma.

        r, i = sigmoid(x[t] @ w_r + b_r), sigmoid(x[t] @ w_i + b_i)
        a = sigmoid(decay) ** (8 r)
        h = a * h + sqrt(1 - a**2) * (i * x[t])     where mask[t]; elsewhere h stays

    Mask class: any. The gates are full matrices, not block-diagonal ones.

    Shapes: `x [batch, time, features]` and mask `[batch, time]` to `y` of the same shape and the
    same mask; with `return_sequences=False` to `last [batch, features]` and a row mask `[batch]`.

    Args:
      features: size of the last axis of `x` and of `y`.
      **options: as in `MinGRU`: `return_sequences` True, `reverse` False, `param_dtype` float32.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.RGLRU(4, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 5, 4)), jnp.ones((2, 5), bool))[0].shape
      (2, 5, 4)

    Source: De et al., 2024, Griffin, arXiv:2402.19427, section 2.4.
    """

    _gates = ("recurrence", "input")
    sharpness = 8.0  # the paper's c

    def __init__(self, features: int, **options: Unpack[LinearOptions]):
        super().__init__(features, features, **options)
        decay = self._slow_decay(options["rngs"].params(), features)
        self.decay = nnx.Param(decay.astype(options.get("param_dtype", jnp.float32)))

    def _slow_decay(self, key: Array, features: int) -> Array:
        """A decay for which `a` is between 0.9 and 0.999 with an open gate, as in the paper."""
        full = jax.random.uniform(key, (features,), minval=0.9, maxval=0.999)
        log_a = jnp.log(full) / self.sharpness
        return log_a - jnp.log(-jnp.expm1(log_a))

    def _coefficients(self, x: Array) -> tuple[Array, Array]:
        state = accumulator(x.dtype)
        r = jax.nn.sigmoid(self.recurrence(x).astype(state))
        i = jax.nn.sigmoid(self.input(x).astype(state))
        decay = jax.nn.log_sigmoid(self.decay[...].astype(state))
        log_a = self.sharpness * r * jax.lax.broadcast_to_rank(decay, r.ndim)
        rest = -jnp.expm1(2 * log_a)
        # The slope of sqrt at 0 is infinite: a gate that rounds to 0 needs a safe operand.
        is_open = rest > 0
        scale = jnp.where(is_open, jnp.sqrt(jnp.where(is_open, rest, 1)), 0)
        return jnp.exp(log_a), scale * i * x.astype(state)
