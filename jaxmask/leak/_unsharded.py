"""A program with `shard_map` as one device would run it: by `vmap` over the devices.

JAX's own rules for `vmap` say what sums, gathers and permutations over devices do, so a proof needs
none of its own.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import source_info_util
from jax.extend.core import jaxprs_in_params

from jaxmask.leak._barriers import Known, Run, bind

Spec = list[tuple[str, ...]]  # for each axis of an array, the devices' axes that it is dealt to
REDUCTIONS = {
    "psum": jax.lax.reduce_sum,
    "pmax": jax.lax.reduce_max,
    "pmin": jax.lax.reduce_min,
}
# These say how arrays lie on devices, and change no value.
PLACED = frozenset({"pvary", "pcast", "reshard", "mesh_cast", "sharding_constraint", "device_put"})


def unsharded(closed: Any) -> Any:
    """The same program without `shard_map`.

    A result that every device should hold alike is nan, or the lowest integer, where they differ.
    """
    if not _has_shard_map(closed.jaxpr):
        return closed
    for _ in range(2):  # then over the axes that `vmap` made of those with names
        closed = _traced(closed)
    return closed


def _traced(closed: Any) -> Any:
    avals = [jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in closed.jaxpr.invars]
    return jax.make_jaxpr(lambda *args: _OneDevice({}).closed(closed, *args))(*avals)


def _has_shard_map(jaxpr: Any) -> bool:
    return any(
        equation.primitive.name == "shard_map"
        or any(_has_shard_map(inner) for inner in jaxprs_in_params(equation.params))
        for equation in jaxpr.eqns
    )


class _OneDevice(Run):
    """Runs a program again, while it is traced."""

    def _equation(self, equation: Any, known: list[Known]) -> list[Known]:
        with _at_the_line_of(equation):
            return super()._equation(equation, known)

    def _bind(self, equation: Any, values: list[Any]) -> list[Any]:
        name, params = equation.primitive.name, equation.params
        if name in PLACED:
            return values
        if name == "shard_map":
            return self._shard_map(params, values)
        if name == "psum_invariant":
            return [jax.lax.psum(values[0], params["axes"])]
        if name == "ppermute":
            return [_permuted(values[0], params["axis_name"], params["perm"])]
        axes = params.get("axes", ())
        if name in REDUCTIONS and all(isinstance(axis, int) for axis in axes):
            return [REDUCTIONS[name](value, axes) for value in values]
        nowhere = {key: None for key in ("sharding", "out_sharding") if key in params}
        return bind(equation.replace(params=params | nowhere), values)  # not in its context: a mesh

    def _apart(self, x: Any) -> Any:
        return x

    def _shard_map(self, params: dict[str, Any], values: list[Any]) -> list[Any]:
        jaxpr, manual = params["jaxpr"], params["newly_manual_axes"]
        sizes = {name: size for name, size in params["mesh"].shape.items() if name in manual}
        specs = [_dealt_to(s, x.ndim) for s, x in zip(params["in_specs"], values, strict=True)]
        local: Callable[..., list[Any]] = lambda *parts: self.closed(jaxpr, *parts)  # noqa: E731
        for name in reversed(sizes):
            axes = [0 if any(name in names for names in spec) else None for spec in specs]
            local = jax.vmap(local, axes, axis_name=name, axis_size=sizes[name])
        parts = [_parts(x, spec, sizes) for x, spec in zip(values, specs, strict=True)]
        pairs = zip(local(*parts), params["out_specs"], strict=True)
        return [_whole(y, _dealt_to(spec, y.ndim - len(sizes)), sizes) for y, spec in pairs]


@contextlib.contextmanager
def _at_the_line_of(equation: Any) -> Iterator[None]:
    with source_info_util.user_context(equation.source_info.traceback):
        yield


def _permuted(x: Any, axis: Any, pairs: Any) -> Any:
    """What each device is sent; 0 where nothing is, which `vmap` does not take."""
    every = jax.lax.all_gather(x, axis)
    sender = np.full(len(every), -1)
    for source, target in pairs:
        sender[target] = source
    mine = jnp.asarray(sender)[jax.lax.axis_index(axis)]
    return jnp.where(mine < 0, jnp.zeros_like(x), every[mine])


def _dealt_to(spec: Any, rank: int) -> Spec:
    entries = [*spec, *[None] * (rank - len(spec))]
    return [(entry,) if isinstance(entry, str) else tuple(entry or ()) for entry in entries]


def _parts(x: Any, spec: Spec, sizes: dict[str, int]) -> Any:
    """The parts of an array, along leading axes for the devices that it is dealt to."""
    shape: list[int] = []
    at: dict[str, int] = {}
    kept = []
    for n, names in zip(x.shape, spec, strict=True):
        at |= {name: len(shape) + k for k, name in enumerate(names)}
        dealt = [sizes[name] for name in names]
        shape += [*dealt, n // math.prod(dealt)]
        kept.append(len(shape) - 1)
    return x.reshape(shape).transpose([*(at[name] for name in sizes if name in at), *kept])


def _whole(y: Any, spec: Spec, sizes: dict[str, int]) -> Any:
    """An array from its parts, along leading axes for all devices."""
    places = {name: k for k, name in enumerate(sizes)}
    order = [places[name] for name in sizes if not any(name in names for names in spec)]
    copies = math.prod(y.shape[k] for k in order)
    shape = [copies]
    for k, names in enumerate(spec, len(sizes)):
        order += [*(places[name] for name in names), k]
        shape.append(y.shape[k] * math.prod(sizes[name] for name in names))
    y = y.transpose(order).reshape(shape)
    if copies == 1:
        return y[0]
    inexact = jnp.issubdtype(y.dtype, jnp.inexact)
    lowest = jnp.nan if inexact else False if y.dtype == bool else jnp.iinfo(y.dtype).min
    return jnp.where((y != y[:1]).any(0), jnp.asarray(lowest, y.dtype), y[0])
