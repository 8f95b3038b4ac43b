"""The entry of the engine: any mask, any map over it, and every derivative.

Each of these calls the next, so that `vmap` and derivatives may come in any order:

    _differentiable              custom_vjp: forward and a hand-written backward
      _forward, _backward        custom_jvp: their derivatives are those of the plain scan
        over_members             custom_vmap: a mapped axis becomes members of one loop
          forward_members, ...   the method: `tiled.py` or `dense.py`
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.custom_batching import custom_vmap

from jaxmask import _mask_ops, ops
from jaxmask._derivatives import mapped_again, no_tangent, of_floats, one_batch
from jaxmask._types import Array, Mask, PyTree, StepMask, Steps, common_dtype
from jaxmask.recurrent import _scan as masked_scan
from jaxmask.recurrent._choice import Choice
from jaxmask.recurrent._engine import dense, tiled
from jaxmask.recurrent._engine.kinds import (
    Batch,
    Kind,
    Setting,
    State,
    Weights,
    join,
    product,
    zeros,
)

METHODS: dict[str, Any] = {"tiled": tiled, "dense": dense, "pallas": dense}


def run(
    kind: Kind,
    choice: Choice,
    x: Steps,
    mask: Mask,
    starts: StepMask | None,
    weights: tuple[Array, Array, Array],
    carry: State,
    *,
    reverse: bool,
) -> tuple[State, tuple[Steps, Mask]]:
    """The last states, each `[batch, hidden]`, and `h` after each real step, with its mask.

    `weights` are `w_x`, `w_h` and `b`, or two biases in one array, that of `x` and that of `h`.
    `starts` says where the state starts from zeros.
    """
    w_x, w_h, b = weights
    compute, dtype = common_dtype(x.dtype, w_x.dtype), carry[0].dtype
    b_x, b_h = (b, None) if b.ndim == 1 else (b[0], b[1])
    # In a `shard_map` these sums make all arrays vary as `x` does, so that gradients are summed.
    matrices = ((w + zeros(x, (), w.dtype)).astype(compute)[None] for w in (w_x, w_h))
    biases = (
        b if b is None else (b + zeros(x, (), b.dtype)).astype(dtype)[None] for b in (b_x, b_h)
    )
    real = _mask_ops.real_steps(mask, x.shape[:2])
    ends, h = _differentiable(
        Setting(kind, choice, reverse),
        Batch(x, real, starts),
        Weights(*matrices, *biases),
        tuple(a + zeros(x, (), a.dtype) for a in carry),
    )
    return ends, (h, mask)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(
    setting: Setting, batch: Batch, weights: Weights, carry: State
) -> tuple[State, Steps]:
    return _forward(_without_backward(setting, batch.x.shape[1]), batch, weights, carry)[0]


def _without_backward(setting: Setting, time: int) -> Setting:
    """Settings for a forward without gradients: save nothing.

    On a CPU use `"tiled"` instead of `"dense"`, unless there is one step.
    """
    choice = setting.choice
    if choice.method == "dense" and choice.unroll == 1 and time > 1:
        choice = dataclasses.replace(choice, method="tiled")
    return setting._replace(keeps=False, choice=choice)


def _vjp_forward(setting: Setting, batch: Batch, weights: Weights, carry: State) -> Any:
    result, saved = _forward(setting, batch, weights, carry)
    return result, (batch, weights, carry, saved)


def _vjp_backward(setting: Setting, saved: Any, given: Any) -> Any:
    d_x, d_weights, d_carry = _backward(setting, *saved, given)
    # A boolean has no cotangent; `custom_vjp` wants None for it.
    return Batch(d_x, None, None), d_weights, d_carry  # type: ignore[arg-type]


_differentiable.defvjp(_vjp_forward, _vjp_backward)


def _reference(
    setting: Setting, batch: Batch, weights: Weights, carry: State
) -> tuple[State, Steps]:
    """What the engine computes, by a `lax.scan` over all steps."""
    own: Weights = jax.tree.map(lambda w: w[0], weights)
    dtype = carry[0].dtype

    def cell(state: State, x: Array) -> tuple[State, Array]:
        new = setting.kind.update(
            join(setting.kind, own, product(x, own.w_x, dtype), state[0]), state
        )
        return new, new[0]

    safe, _ = ops.fill(batch.x, batch.real)
    ends, (h, _) = masked_scan.run(
        cell, safe, batch.real, batch.starts, carry, reverse=setting.reverse
    )
    return ends, h.astype(batch.x.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _forward(
    setting: Setting, batch: Batch, weights: Weights, carry: State
) -> tuple[tuple[State, Steps], Any]:
    inner = functools.partial(METHODS[setting.choice.method].forward_members, setting)
    return over_members(inner)(weights, batch, carry)


@_forward.defjvp
def _forward_jvp(setting: Setting, primals: Any, tangents: Any) -> Any:
    result, saved = _forward(setting, *primals)
    _, d_result = jax.jvp(*of_floats(functools.partial(_reference, setting), primals, tangents))
    # Only `_backward` reads what is saved, and its derivative does not read it.
    return (result, saved), (d_result, jax.tree.map(no_tangent, saved))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _backward(
    setting: Setting, batch: Batch, weights: Weights, carry: State, saved: Any, given: Any
) -> tuple[Array, Weights, State]:
    inner = functools.partial(METHODS[setting.choice.method].backward_members, setting)
    d_x, d_weights, d_carry = over_members(inner)(weights, batch, carry, saved, given)
    d_weights = jax.tree.map(lambda d, w: d[None].astype(w.dtype), d_weights, weights)
    return d_x.astype(batch.x.dtype), d_weights, d_carry


@_backward.defjvp
def _backward_jvp(setting: Setting, primals: Any, tangents: Any) -> Any:
    def pull(batch: Batch, weights: Weights, carry: State, given: Any) -> Any:
        def plain(x: Array, weights: Weights, carry: State) -> Any:
            return _reference(setting, batch._replace(x=x), weights, carry)

        return jax.vjp(plain, batch.x, weights, carry)[1](given)

    read, d_read = ((*tree[:3], tree[4]) for tree in (primals, tangents))
    return _backward(setting, *primals), jax.jvp(*of_floats(pull, read, d_read))[1]


def over_members(f: Callable) -> Callable:
    """Call `f(weights, *rest)` with a leading axis of members, one here, which `vmap` multiplies.

    A `vmap` of the loop would have a trip count for every mapped index, and select among whole
    buffers in every iteration; one loop over the rounds of all members does not.
    """

    @custom_vmap
    def members(weights: Weights, *rest: PyTree) -> PyTree:
        return f(weights, *rest)

    @members.def_vmap
    def rule(size: int, mapped: Any, weights: Weights, *rest: PyTree) -> Any:
        if any(jax.tree.leaves(mapped[0])) or jax.tree.leaves(weights)[0].shape[0] > 1:
            weights = one_batch(size, mapped[0], weights)
        return mapped_again(size, members(weights, *one_batch(size, tuple(mapped[1:]), rest)))

    def single(weights: Weights, *rest: PyTree) -> PyTree:
        out = members(weights, *jax.tree.map(lambda a: a[None], rest))
        return jax.tree.map(lambda a: a[0], out)

    return single
