"""The engine's face: any mask, any map over it, and every derivative.

Each of these calls the next:

    run                          custom_vjp: forward, and back by hand
      _forward, _back            custom_jvp: their own derivatives are those of the plain scan
        over_members             custom_vmap: a mapped axis becomes members of one loop
          forward, backward      the loops; with `dense`, those of `dense.py`

So `vmap` and derivatives may come in any order.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _mask_ops, ops
from jaxmask._types import Array, Mask, StepMask, Steps, common_dtype
from jaxmask.recurrent import _scan as masked_scan
from jaxmask.recurrent._choice import Choice
from jaxmask.recurrent._engine import dense as without_tiles
from jaxmask.recurrent._engine.forward import Weights, join, product, zeros
from jaxmask.recurrent._engine.kinds import Kind, State
from jaxmask.recurrent._engine.members import (
    Batch,
    Saved,
    Setting,
    back_members,
    forward_members,
    over_members,
)


def recurrence(
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
    """A recurrence over any mask.

    Args:
      kind: the recurrence.
      choice: the sizes to cut with.
      x: `[batch, time, feature]`.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      starts: where the state starts from zeros, or None.
      weights: `w_x`, `w_h` and `b`, or two biases in one array, that of `x` and that of `h`.
      carry: the first states, each `[batch, hidden]`.
      reverse: from the last real step of each row to the first.
    """
    w_x, w_h, b = weights
    compute, dtype = common_dtype(x.dtype, w_x.dtype), carry[0].dtype
    b_x, b_h = (b, None) if b.ndim == 1 else (b[0], b[1])
    # In a `shard_map` these sums make all vary as `x` does, so that gradients are added up.
    matrices = ((w + zeros(x, (), w.dtype)).astype(compute)[None] for w in (w_x, w_h))
    biases = (
        b if b is None else (b + zeros(x, (), b.dtype)).astype(dtype)[None] for b in (b_x, b_h)
    )
    real = _mask_ops.real_steps(mask, x.shape[:2])
    ends, h = run(
        Setting(kind, choice, reverse),
        Batch(x, real, starts),
        Weights(*matrices, *biases),
        tuple(a + zeros(x, (), a.dtype) for a in carry),
    )
    return ends, (h, mask)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def run(setting: Setting, batch: Batch, weights: Weights, carry: State) -> tuple[State, Steps]:
    """The state after the last real step of each row, and `h` after each real step, else 0.

    Args:
      setting: the recurrence, the method, and the direction.
      batch: `x [batch, time, feature]`.
      weights: of one member.
      carry: the first states, each `[batch, hidden]`.
    """
    return _forward(_without_backward(setting, batch.x.shape[1]), batch, weights, carry)[0]


def _without_backward(setting: Setting, time: int) -> Setting:
    """Nothing is kept. On a CPU the dense way is for its backward, and for a step alone."""
    choice = setting.choice
    if choice.method == "dense" and choice.unroll == 1 and time > 1:
        choice = dataclasses.replace(choice, method="tiled")
    return setting._replace(keeps=False, choice=choice)


def _run_forward(setting: Setting, batch: Batch, weights: Weights, carry: State) -> Any:
    result, saved = _forward(setting, batch, weights, carry)
    return result, (batch, weights, carry, saved)


def _run_back(setting: Setting, saved: Any, given: Any) -> Any:
    d_x, d_weights, d_carry = _back(setting, *saved, given)
    # What is boolean has no cotangent, and `custom_vjp` wants None in its place.
    return Batch(d_x, None, None), d_weights, d_carry  # type: ignore[arg-type]


run.defvjp(_run_forward, _run_back)


# ------------------------------------------------------ derivatives of derivatives: the plain scan


def reference(
    setting: Setting, batch: Batch, weights: Weights, carry: State
) -> tuple[State, Steps]:
    """What `run` computes, by a `lax.scan` over all steps."""
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
) -> tuple[tuple[State, Steps], Saved | without_tiles.Kept | None]:
    way = forward_members if setting.choice.method == "tiled" else without_tiles.forward_members
    inner = functools.partial(way, setting)
    return over_members(inner)(weights, batch, carry)


@_forward.defjvp
def _forward_jvp(setting: Setting, primals: Any, tangents: Any) -> Any:
    result, saved = _forward(setting, *primals)
    _, d_result = jax.jvp(*_floating(functools.partial(reference, setting), primals, tangents))
    # Only `_back` sees what is saved, and its derivative does not read it.
    return (result, saved), (d_result, jax.tree.map(_no_tangent, saved))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _back(
    setting: Setting, batch: Batch, weights: Weights, carry: State, saved: Any, given: Any
) -> tuple[Array, Weights, State]:
    way = back_members if setting.choice.method == "tiled" else without_tiles.back_members
    inner = functools.partial(way, setting)
    d_x, d_weights, d_carry = over_members(inner)(weights, batch, carry, saved, given)
    d_weights = jax.tree.map(lambda d, w: d[None].astype(w.dtype), d_weights, weights)
    return d_x.astype(batch.x.dtype), d_weights, d_carry


@_back.defjvp
def _back_jvp(setting: Setting, primals: Any, tangents: Any) -> Any:
    def pull(batch: Batch, weights: Weights, carry: State, given: Any) -> Any:
        def plain(x: Array, weights: Weights, carry: State) -> Any:
            return reference(setting, batch._replace(x=x), weights, carry)

        return jax.vjp(plain, batch.x, weights, carry)[1](given)

    read, d_read = ((*tree[:3], tree[4]) for tree in (primals, tangents))
    return _back(setting, *primals), jax.jvp(*_floating(pull, read, d_read))[1]


def _floating(f: Callable, primals: Any, tangents: Any) -> tuple[Callable, Any, Any]:
    """Close over what has no tangent."""
    leaves, tree = jax.tree.flatten(primals)
    d_leaves = jax.tree.leaves(tangents)
    moving = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]

    def inner(*arrays: Array) -> Any:
        changed = list(leaves)
        for i, array in zip(moving, arrays, strict=True):
            changed[i] = array
        return f(*jax.tree.unflatten(tree, changed))

    return inner, tuple(leaves[i] for i in moving), tuple(d_leaves[i] for i in moving)


def _no_tangent(a: Array) -> Any:
    inexact = jnp.issubdtype(a.dtype, jnp.inexact)
    return jnp.zeros_like(a) if inexact else np.zeros(a.shape, jax.dtypes.float0)
