"""Run the groups or the packed rows, forward and backward.

Each of these calls the next, so that `vmap` and derivatives may come in any order:

    run                     custom_vjp: forward, and a backward from what is kept of it
      _forward, _backward   custom_jvp: their derivatives are those of `f` on the batch as it is
        _one_by_one         custom_vmap: mapped calls run in turn, since a `switch` with a mapped
                            index would run every branch
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jaxmask._derivatives import no_tangent, of_floats
from jaxmask._types import Array, PyTree
from jaxmask.skip import _groups as groups
from jaxmask.skip import _packed as packed
from jaxmask.skip._arguments import Arrays
from jaxmask.skip._plan import WHERE
from jaxmask.skip._tracing import Programs


def run(programs: Programs, arrays: Arrays) -> PyTree:
    """What `f` returns for the batch."""
    return jax.tree.unflatten(programs.tree, _differentiable(programs, arrays))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(programs: Programs, arrays: Arrays) -> list[Array]:
    return _forward(programs, arrays)


def _vjp_forward(programs: Programs, arrays: Arrays) -> tuple[list[Array], Any]:
    if not programs.plan.sequences:
        return _forward(programs, arrays), (arrays, [])
    results, kept = _forward_keeping(programs, arrays)
    return results, (arrays, kept)


def _vjp_backward(programs: Programs, saved: Any, given: list[Any]) -> tuple[Arrays]:
    arrays, kept = saved
    _refuse_captured_weights(arrays)
    results = zip(given, programs.results, strict=True)
    floating = [g for g, result in results if result.is_floating]
    gradients = _backward(programs, arrays, kept, floating)
    return (groups.merged(arrays, gradients, others=False),)


def _refuse_captured_weights(arrays: Arrays) -> None:
    """Inside `shard_map`, each device would have a gradient of its own for what all share."""
    for a in filter(groups.is_floating, arrays.captured):
        if jax.typeof(groups.varying(a, arrays.steps[0])) != jax.typeof(a):
            raise ValueError(
                f"{WHERE}: inside `shard_map`, weights that all devices share must be arguments of "
                f"`f`, `f(x, mask, weights)`, to have a gradient; it closes over one of {a.shape}."
            )


_differentiable.defvjp(_vjp_forward, _vjp_backward)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _forward(programs: Programs, arrays: Arrays) -> list[Array]:
    run = packed.forward if programs.plan.sequences else groups.forward
    return _one_by_one(functools.partial(run, programs))(arrays)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _forward_keeping(programs: Programs, arrays: Arrays) -> tuple[list[Array], list[Array]]:
    return _one_by_one(functools.partial(packed.forward_keeping, programs))(arrays)


@_forward.defjvp
def _forward_jvp(programs: Programs, primals: Any, tangents: Any) -> Any:
    results = _forward(programs, *primals)
    return results, _tangents(programs, results, primals, tangents)


@_forward_keeping.defjvp
def _forward_keeping_jvp(programs: Programs, primals: Any, tangents: Any) -> Any:
    """What is kept has no tangent: the derivative of `_backward` does not use it."""
    results, kept = _forward_keeping(programs, *primals)
    d_results = _tangents(programs, results, primals, tangents)
    return (results, kept), (d_results, list(map(no_tangent, kept)))


def _tangents(programs: Programs, results: list[Array], primals: Any, tangents: Any) -> list:
    d_floating = iter(
        jax.jvp(*of_floats(functools.partial(_whole, programs), primals, tangents))[1]
    )
    return [
        next(d_floating) if result.is_floating else no_tangent(y)
        for y, result in zip(results, programs.results, strict=True)
    ]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _backward(
    programs: Programs, arrays: Arrays, kept: list[Array], given: list[Array]
) -> list[Array]:
    """Gradients of the floating arrays, by the cotangents of the floating results."""
    if programs.plan.sequences:
        return _one_by_one(functools.partial(packed.backward, programs))(arrays, kept, given)
    return _one_by_one(functools.partial(groups.backward, programs))(arrays, given)


@_backward.defjvp
def _backward_jvp(programs: Programs, primals: Any, tangents: Any) -> Any:
    def pull(arrays: Arrays, given: list[Array]) -> list[Array]:
        def whole(floats: list[Array]) -> list[Array]:
            return _whole(programs, groups.merged(arrays, floats))

        return jax.vjp(whole, groups.floats(arrays))[1](given)[0]

    arrays, _, given = primals
    d_arrays, _, d_given = tangents
    d_gradients = jax.jvp(*of_floats(pull, (arrays, given), (d_arrays, d_given)))[1]
    return _backward(programs, *primals), d_gradients


def _whole(programs: Programs, arrays: Arrays) -> list[Array]:
    """The floating results of the batch as it is."""
    return groups.floating_results(programs, programs.whole, arrays)


def _one_by_one(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, which `vmap` runs for one mapped index after the other."""
    mapped = custom_vmap(f)

    @mapped.def_vmap
    def rule(size: int, is_mapped: Any, *arguments: PyTree) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        moving = jax.tree.leaves(is_mapped)

        def of_index(index: Array) -> list[Array]:
            own = [
                leaf[index] if moves else leaf for leaf, moves in zip(leaves, moving, strict=True)
            ]
            return mapped(*jax.tree.unflatten(tree, own))

        results = jax.lax.map(of_index, jnp.arange(size))
        return results, jax.tree.map(lambda _: True, results)

    return mapped
