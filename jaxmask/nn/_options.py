"""The options of a call, and how they reach every layer inside a wrapper, however deep.

A wrapper takes `**options: Unpack[CallOptions]`, opens them with `opened`, and passes them to
`join.call` or `streaming.run`, which give each layer the ones that it takes.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypedDict

import jax
import jax.numpy as jnp
from flax import errors, nnx

from jaxmask import _check
from jaxmask._keys import SequenceIds
from jaxmask._types import Array, ArrayLike
from jaxmask.nn._base import M, MaskedModule

Rngs = nnx.Rngs | nnx.RngStream | Array
Given = Mapping[str, Any]
_SWITCHES = ("deterministic", "use_running_average")


class NoiseCall(TypedDict, total=False):
    """Options for all layers that draw noise or keep statistics; None means not given.

    Attributes:
      rngs: random streams, one stream, or a key, in place of the layers' own streams; a foreign
        module that does not take `rngs` draws from them too, where it has streams.
      row_ids: `[batch]`, integer: the id of each row in the noise, its index where None.
      deterministic: True turns noise off in this call, False on; what the layers say where None.
      use_running_average: the same for statistics of the batch.
    """

    rngs: Rngs | None
    row_ids: ArrayLike | None
    deterministic: bool | None
    use_running_average: bool | None


class CallOptions(NoiseCall, total=False):
    """Options for all layers inside a wrapper.

    Attributes:
      resets: `[batch, time]`, boolean: steps that begin an episode, for recurrent layers. A layer
        that works over time and has no notion of episodes refuses them.
    """

    resets: ArrayLike | None


def opened(module: M, options: Any, *, resets: bool = True) -> tuple[M, Given]:
    """The module with the switches of a call set, and the options that were given.

    The variables of the module are its own: random streams and statistics advance as always.
    `resets`: whether the module knows them.
    """
    where = type(module).__name__
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in CallOptions.__annotations__:
            known = ", ".join(CallOptions.__annotations__)
            raise TypeError(f"{where}: a call takes no option `{name}`; the options are {known}.")
    if "resets" in given and not resets:
        refuse_resets(where)
    if "rngs" in given:
        given["rngs"] = _streams(given["rngs"], where)
    switches = {name: given[name] for name in _SWITCHES if name in given}
    if switches:
        module = nnx.merge(*nnx.split(module))  # without a copy of its variables
        module.set_attributes(raise_if_not_found=False, **switches)
    return module, given


def refuse_resets(where: str) -> NoReturn:
    """Refuse `resets` for a layer that works over time and has no notion of an episode."""
    raise TypeError(
        f"{where}: takes no `resets` and works over time, so it would mix the episodes of a row. "
        "Use a recurrent layer, or give each episode its own row or segment."
    )


def _streams(rngs: Any, where: str) -> nnx.Rngs | nnx.RngStream:
    """One key for many layers would give all of them the same noise."""
    if isinstance(rngs, nnx.Rngs | nnx.RngStream):
        return rngs
    if isinstance(rngs, jax.Array):
        return nnx.Rngs(rngs)
    raise TypeError(
        f"{where}: `rngs` must be `nnx.Rngs`, one stream of it, or a JAX random key, got "
        f"{_check.kind_of(rngs)}."
    )


def named(f: Callable[..., Any], given: Given) -> dict[str, Any]:
    """The options that a call of `f` names."""
    parameters = _parameters(f) if given else {}
    return {name: value for name, value in given.items() if name in parameters}


def taken(f: Callable[..., Any], given: Given) -> dict[str, Any]:
    """The options that a call of a masked layer takes: those that it names, or all with a `**`."""
    parameters = _parameters(f) if given else {}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return named(f, given)
    ids = given.get("row_ids", 0)
    if isinstance(getattr(f, "__self__", f), MaskedModule) or not (
        isinstance(ids, SequenceIds) or jnp.ndim(ids) > 1
    ):
        return dict(given)
    # `TimeDistributed` and packing make such row ids, which a foreign `**` may not accept.
    return {name: value for name, value in given.items() if name != "row_ids"}


def reseeded(layer: Any, given: Given, where: str) -> Any:
    """The layer, or a foreign module that draws from `rngs` of the call though it names none.

    Its own streams do not advance, and its other variables stay shared.
    """
    rngs = given.get("rngs")
    is_foreign = isinstance(layer, nnx.Module) and not isinstance(layer, MaskedModule)
    if rngs is None or not is_foreign or "rngs" in taken(layer, given):
        return layer
    return restreamed(layer, lambda: draw(None, rngs, where))


def restreamed(module: M, new_key: Callable[[], Array]) -> M:
    """The module with new keys in its streams; its other variables stay shared."""
    graph, *states = nnx.split(module, nnx.RngKey, nnx.RngCount, ...)
    keys, counts, rest = states
    if not jax.tree.leaves(keys):
        return module
    keys = jax.tree.map(lambda _: new_key(), keys)
    return nnx.merge(graph, keys, jax.tree.map(jnp.zeros_like, counts), rest)


def _parameters(f: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(f).parameters
    except (TypeError, ValueError):
        return {}


def draw(
    stream: Callable[[], Array] | None, rngs: Rngs | None, where: str, collection: str = "dropout"
) -> Array:
    """A random key: from what the call was given, or else from the layer's own stream."""
    if isinstance(rngs, jax.Array):
        return rngs
    if isinstance(rngs, nnx.Rngs):
        try:
            rngs = rngs[collection]
        except KeyError:
            raise ValueError(
                f"{where}: `rngs` has no stream `{collection}` and no default one. Pass "
                f"`nnx.Rngs({collection}=seed)` or `nnx.Rngs(seed)`."
            ) from None
    source: Any = stream if rngs is None else rngs
    if source is None:
        raise ValueError(
            f"{where}: noise needs a random stream: build the layer with `rngs=`, call it or the "
            "`Sequential` around it with `rngs=`, or turn it off with `model.eval()`."
        )
    try:
        return source()
    except errors.TraceContextError as error:
        raise ValueError(
            f"{where}: the random stream of a closed-over model cannot advance inside a transform "
            "of JAX. Use `nnx.jit` and `nnx.grad`, or split and merge the model inside, or call "
            "the layer or the `Sequential` with `rngs=`."
        ) from error
