"""Where masks begin: `Embed` and `Masking`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, _class_ids, _mask_ops, ops
from jaxmask._meshes import spread_like
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.nn._base import MaskedModule


class Embed(MaskedModule):
    """Look up a vector for each id.

        y[b, t] = embedding[ids[b, t]]   where mask[b, t], else 0

    Shapes: `ids [batch, time]` (or `[batch]`), integer, and its mask to `y [..., features]`. The
    padding of `ids` may hold anything; it is not looked up.

    Args:
      num_embeddings: number of ids, 0 to `num_embeddings - 1`.
      features: size of a vector.
      mask_zero: id 0 is padding: the mask is `ids != 0`, combined with the one that came in. Else
        the mask that came in is returned.
      embedding_init: initializer of `embedding [num_embeddings, features]`.
      embedding_metadata: metadata of the parameter, such as its sharding.
      dtype: of the result; of the parameter where None.
      param_dtype: dtype in which the parameter is stored.
      rngs: source of the `params` random stream.

    Raises:
      ValueError: on call, if a real id is out of range; under `jit`, where values cannot be seen,
        such an id gives nan.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> embed = jm.nn.Embed(10, 4, mask_zero=True, rngs=nnx.Rngs(0))
      >>> y, mask = embed(jnp.array([[7, 8, 0]]))
      >>> y.shape, mask.tolist()
      ((1, 3, 4), [[True, True, False]])

    Agrees with `flax.nnx.Embed` and `keras.layers.Embedding`.
    """

    per_step = True

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        mask_zero: bool = False,
        embedding_init: nnx.Initializer = nnx.initializers.variance_scaling(
            1.0, "fan_in", "normal", out_axis=0
        ),
        embedding_metadata: Mapping[str, Any] = MappingProxyType({}),
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check.count(num_embeddings, "Embed", "num_embeddings", least=1)
        _check.count(features, "Embed", "features", least=1)
        shape = (num_embeddings, features)
        table = embedding_init(rngs.params(), shape, param_dtype)
        self.embedding = nnx.Param(table, **embedding_metadata)
        self.num_embeddings = num_embeddings
        self.features = features
        self.mask_zero = mask_zero
        self.dtype = dtype

    @jax.named_scope("jaxmask.nn.Embed")
    def __call__(self, ids: ArrayLike, mask: Mask = None) -> Pair:
        """Look up the real ids and return `(y, mask)`."""
        given, given_mask = ids, mask
        ids, mask = _check.pair(ids, mask, "Embed", name="ids")
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise TypeError(f"Embed: `ids` must be integers, got dtype {ids.dtype}.")
        if self.mask_zero:
            _check_axes(ids.shape, "Embed")
            given_mask = mask = _mask_ops.intersect(mask, _check.unfolded(given, ids) != 0, "Embed")
        ids, valid = _class_ids.real_ids(
            *(given, given_mask, self.num_embeddings, "Embed", "ids"), of="embeddings"
        )
        # Out of range, where "fill" gives nan and no gradient reaches the table.
        ids = jnp.where(valid, ids, self.num_embeddings)
        table = self.embedding[...]
        table = table if self.dtype is None else table.astype(self.dtype)
        return ops.fill(spread_like((ids,), _rows_of, table, ids), mask)


class Masking(MaskedModule):
    """Make a mask from a sentinel value: a step is padding if all its features hold it.

        mask'[b, t] = mask[b, t] and any_f(x[b, t, f] != mask_value)

    Masked steps of the result are 0.

    Shapes: `x [batch, time, feature]` gives a mask `[batch, time]`; the last axis is always
    features, so `x [batch, feature]` gives a row mask `[batch]`.

    Args:
      mask_value: the sentinel, which may be nan.

    Raises:
      MaskError: on call, if the mask that came in does not fit the one made.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.nn.Masking(-1.0)(jnp.array([[[3.0, -1.0], [-1.0, -1.0]]]))
      >>> y.tolist(), mask.tolist()
      ([[[3.0, -1.0], [0.0, 0.0]]], [[True, False]])

    Agrees with `keras.layers.Masking`, which discards the mask that came in.
    """

    per_step = True

    def __init__(self, mask_value: float = 0.0):
        self.mask_value = mask_value

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Find the padding and return `(y, mask)`."""
        given, (x, mask) = x, _check.pair(x, mask, "Masking")
        _check_axes(x.shape[:-1], "Masking")
        # The barrier comes after the comparison: before it, a nan would trip `jax_debug_nans`.
        differs = _check.unfolded(given, _mask_ops.differs_from(x, self.mask_value))
        real = jnp.any(differs, axis=-1)
        return ops.fill(x, _mask_ops.intersect(mask, real, "Masking"))


def _rows_of(table: Array, ids: Array) -> Array:
    return jnp.take(table, ids, axis=0, mode="fill")


def _check_axes(shape: tuple[int, ...], where: str) -> None:
    """A mask made from values must have rank 1 or 2."""
    if len(shape) not in (1, 2):
        raise _check.MaskError(
            f"{where}: a mask has rank 1 (rows) or 2 (steps), but this input would give one of "
            f"shape {shape}. Documents go through `jm.nn.TimeDistributed`."
        )
