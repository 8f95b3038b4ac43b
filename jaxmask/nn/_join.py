"""Adapt layers that do not support masks: three wrappers, and a table that users extend."""

import functools
import inspect
import warnings
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, TypeAlias, Unpack

import jax
import numpy as np
from flax import nnx

from jaxmask import _check, ops
from jaxmask._types import Array, Mask, Pair, Segments
from jaxmask.nn._advice import refuse_kind, ways
from jaxmask.nn._base import MaskedModule
from jaxmask.nn._foreign import FLAX_LAYERS
from jaxmask.nn._locate import located
from jaxmask.nn._options import CallOptions, Given, named, opened, refuse_resets, reseeded, taken

Adapter: TypeAlias = Callable[[Any], Callable[..., Pair]]
ON_UNSUPPORTED = ("error", "warn", "drop")
NOTHING: Given = MappingProxyType({})


class Passthrough(MaskedModule):
    """Adapt a function that acts on each step independently.

    The mask passes through (Keras's `supports_masking`).

    The function never sees padding: before it runs, padded steps become copies of a real step,
    since a zero or nan there makes nan gradients in sqrt, log or a normalisation even under a
    masked loss. Its results at padded steps are replaced by 0. A bare `nnx.Dropout` draws noise by
    row and real step. Noise inside a larger module is drawn in the shape of the padded array, so
    padding and the order of rows change it: put `jaxmask.nn.Dropout` beside the module instead.

    Shapes: any `f` whose result keeps the axes that the mask has.

    Args:
      f: a function or module `f(x) -> y` that acts on each step alone. One that mixes steps leaks
        padding, which `jm.leak.check` finds.
      fill: value of all steps of a batch without a real step; 1 where None (0 for integers).

    Raises:
      MaskError: on call, if `f` changes the axes that the mask has.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> layer = jm.nn.Passthrough(jnp.sqrt)
      >>> y, mask = layer(jnp.array([[4.0, -1.0]]), jnp.array([[True, False]]))
      >>> y.tolist(), mask.tolist()
      ([[2.0, 0.0]], [[True, False]])
    """

    per_step = True

    def __init__(self, f: Callable[[Any], Array], *, fill: float | None = None):
        _check.function(f, "Passthrough", "f")
        self.f = f
        self.fill = fill

    def __call__(self, x: Array, mask: Mask = None, **options: Unpack[CallOptions]) -> Pair:
        """Run `f` on safe steps and return `(y, mask)`; `f` gets the options that it names."""
        layer, given = opened(self, options)
        if type(layer.f) is nnx.Dropout and not layer.f.broadcast_dims:
            return call(layer.f, x, mask, at="Passthrough", given=given)
        f, f_options = reseeded(layer.f, given, "Passthrough"), named(layer.f, given)
        f = functools.partial(f, **f_options) if f_options else f
        return ops.each_step(f, x, mask, fill=self.fill)


class Consume(MaskedModule):
    """Adapt a function that consumes the mask; its output has none.

    Args:
      f: a function or module `f(x, mask) -> y`, such as a pooling of your own. It sees `x` as it
        is, padding included.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> count = jm.nn.Consume(lambda x, mask: jnp.sum(mask, axis=1))
      >>> y, mask = count(jnp.zeros((1, 2, 3)), jnp.array([[True, False]]))
      >>> y.tolist(), mask is None
      ([1], True)
    """

    def __init__(self, f: Callable[[Any, Mask], Any]):
        _check.function(f, "Consume", "f")
        self.f = f

    def __call__(
        self, x: Any, mask: Mask = None, **options: Unpack[CallOptions]
    ) -> tuple[Any, None]:
        """Run `f` and return `(y, None)`; `f` gets the options that it names."""
        layer, given = opened(self, options)
        f = reseeded(layer.f, given, "Consume")
        return f(x, mask, **call_options(f, f, given, "Consume")), None


class DropMask(MaskedModule):
    """End the mask: padding becomes 0, and every step counts as real from here on.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.nn.DropMask()(jnp.array([[1.0, jnp.nan]]), jnp.array([[True, False]]))
      >>> y.tolist(), mask is None
      ([[1.0, 0.0]], True)
    """

    per_step = True

    def __call__(self, x: Array, mask: Mask = None) -> tuple[Array, None]:
        """Fill the padding with 0 and return `(x, None)`."""
        return ops.fill(x, mask)[0], None


_user_table: dict[Any, Adapter] = {}


def register(layer: type | Callable[..., Any], adapter: Adapter) -> None:
    """Register how `Sequential` adapts all layers of a type, or one function.

    Args:
      layer: a class (matched exactly, so that a subclass that mixes steps is not mistaken for its
        parent), or a function (matched by identity).
      adapter: what makes a masked layer of it: `Passthrough`, `Consume`, or any
        `adapter(layer) -> callable (x, mask) -> (y, mask)`.

    Raises:
      TypeError: if `layer` is the type of all functions, which would adapt every one of them by one
        rule, or is neither a class nor a function; if `adapter` is not callable.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> def double(x):
      ...     return 2 * x
      >>> jm.nn.register(double, jm.nn.Passthrough)
      >>> jm.nn.Sequential(double)(jnp.ones((1, 2)), jnp.array([[True, False]]))[0].tolist()
      [[2.0, 0.0]]
    """
    if isinstance(layer, type):
        refuse_kind(layer)
    elif not callable(layer):
        raise TypeError(
            f"register: `layer` must be a class or a function, got {_check.kind_of(layer)}."
        )
    if not callable(adapter):
        raise TypeError(
            "register: `adapter` must be callable, such as `jm.nn.Passthrough`, got "
            f"{_check.kind_of(adapter)}."
        )
    _user_table[layer] = adapter


def require_layer(layer: Any, at: str) -> None:
    """Refuse anything but a layer, such as its class or a list of layers."""
    if isinstance(layer, type):
        name = layer.__name__
        raise TypeError(f"{at} is the class `{name}`, not a layer. Build it: `{name}(...)`.")
    if not callable(layer):
        hint = " Pass layers one by one: `Sequential(*layers)`." if isinstance(layer, list) else ""
        raise TypeError(f"{at} must be callable, got {type(layer).__name__}.{hint}")


def call(
    layer: Callable[..., Any],
    x: Any,
    mask: Mask,
    *,
    at: str,
    on_unsupported: str = "error",
    given: Given = NOTHING,
) -> tuple[Any, Mask]:
    """Call any layer on a pair: the one place that decides how a layer handles a mask.

    In order: the user's table, the table of Flax's layers, a second positional parameter named
    `mask`. Any other layer is an error if there is a mask. `given`: the options of the call, of
    which each layer gets those that it names.
    """
    with located(at, layer, x):
        result, is_masked = _run(layer, x, mask, given, at)
    if is_masked:
        return checked(result, layer, at)
    if mask is not None:
        _unsupported(layer, at, on_unsupported)
        x, _ = ops.fill(x, mask)
    with located(at, layer, x):
        y = reseeded(layer, given, at)(x, **call_options(layer, layer, given, at, take=named))
    return _unmasked(y, layer, at), None


def _run(layer: Any, x: Any, mask: Mask, given: Given, at: str) -> tuple[Any, bool]:
    """The pair of a layer that supports masks, and whether it does."""
    if (adapter := lookup(_user_table, layer)) is not None:
        layer = adapter(layer)
        return layer(x, mask, **call_options(layer, layer, given, at)), True
    if (rule := lookup(FLAX_LAYERS, layer)) is not None:
        pair = rule(layer, _check.array(x, "x", f"{at}, {_check.name_of(layer)}"), mask, given)
        return pair, pair is not None
    if takes_mask(layer):
        layer = reseeded(layer, given, at)
        return layer(x, mask, **call_options(layer, layer, given, at)), True
    return None, False


def call_options(
    layer: Any,
    method: Callable[..., Any],
    given: Given,
    at: str,
    *,
    take: Callable[..., dict[str, Any]] = taken,
) -> dict[str, Any]:
    """The options for a call of a layer's method; `resets` are never dropped silently."""
    options = take(method, given)
    if "resets" in given and "resets" not in options:
        keeps_episodes = acts_on_each_step(layer) or getattr(layer, "ignores_resets", False)
        if not keeps_episodes:
            refuse_resets(f"{at}, {_check.name_of(layer)}")
    return options


def adapted(layer: Any) -> Any:
    """What the user's table makes of a layer; the layer itself if it has no entry."""
    adapter = lookup(_user_table, layer)
    return layer if adapter is None else adapter(layer)


def acts_on_each_step(layer: Any) -> bool:
    """Whether a layer says so (`per_step = True`) or is in the table of Flax's layers."""
    return bool(getattr(layer, "per_step", False)) or lookup(FLAX_LAYERS, layer) is not None


def lookup(table: dict[Any, Any], layer: Any) -> Any:
    """The entry of a layer: its own, or else that of its exact type."""
    try:
        itself = table.get(layer)
    except TypeError:  # not hashable
        itself = None
    return table.get(type(layer)) if itself is None else itself


def takes_mask(layer: Callable[..., Any]) -> bool:
    """Whether the second positional parameter is named `mask`."""
    try:
        parameters = list(inspect.signature(layer).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 and positional[1].name == "mask"


def _unsupported(layer: Any, at: str, on_unsupported: str) -> None:
    reason = "got a mask and does not support masks"
    if lookup(FLAX_LAYERS, layer) is not None:
        reason = "got a mask and, set up like this, would mix steps or drop their axis"
    text = f"{at}, {_check.name_of(layer)}, {reason}. Say what it does with one:\n{ways(layer)}"
    if on_unsupported == "error":
        raise _check.MaskError(text)
    if on_unsupported == "warn":
        warnings.warn(f"{text}\nThe mask ends here.", stacklevel=4)


def checked(result: Any, layer: Any, at: str) -> tuple[Any, Mask]:
    """The result of a masked layer, which must be a pair whose mask fits."""
    if not (isinstance(result, tuple) and len(result) == 2):
        raise _check.MaskError(
            f"{at}, {_check.name_of(layer)}, must return a pair `(y, mask)`, got "
            f"{_check.kind_of(result)}. If it returns `y` alone, wrap it: `jm.nn.Passthrough` or "
            "`jm.nn.Consume`."
        )
    y, mask = result
    if mask is None:
        return y, None
    ids = mask.ids if isinstance(mask, Segments) else mask
    if not isinstance(ids, jax.Array | np.ndarray):
        raise _check.MaskError(
            f"{at}, {_check.name_of(layer)}, returned a mask of type {type(mask).__name__}; "
            "it must be a boolean array, `jm.Segments` or None."
        )
    if mask is ids:
        _check.boolean(mask, f"{at}, {_check.name_of(layer)}, returned")
    shapes = [leaf.shape for leaf in jax.tree.leaves(y)]
    if any(shape[: ids.ndim] != ids.shape for shape in shapes):
        raise _check.MaskError(
            f"{at}, {_check.name_of(layer)}, returned a mask of shape {ids.shape} for `y` of shape "
            f"{shapes[0]}: a mask has the leading axes of its array."
        )
    return y, mask


def _unmasked(y: Any, layer: Any, at: str) -> Any:
    if isinstance(y, tuple) and len(y) == 2 and getattr(y[1], "dtype", None) == np.bool_:
        raise _check.MaskError(
            f"{at}, {_check.name_of(layer)}, returned a pair but takes no mask. A layer "
            "that makes a mask must take the one that came in, `(x, mask) -> (y, mask)`, `mask` "
            "second."
        )
    return y
