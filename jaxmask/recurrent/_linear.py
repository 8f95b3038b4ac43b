"""Linear recurrences, all steps at once by an associative scan."""

import functools

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, ops
from jaxmask._errors import refusing_pairs
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, StepMask, common_dtype
from jaxmask.recurrent import _scan as masked_scan


@refusing_pairs
def linear(
    x: ArrayLike,
    mask: Mask,
    decay: ArrayLike,
    carry: ArrayLike | None = None,
    *,
    reverse: bool = False,
    segments: Segments | ArrayLike | None = None,
    resets: ArrayLike | None = None,
) -> tuple[Array, Pair]:
    """Linear recurrence over the real steps of each row, feature by feature.

        h = decay[t] * h + x[t]     where mask[t]; elsewhere h stays
        y[t] = h                    where mask[t], else 0

    `jax.lax.associative_scan` computes all steps at once, in log2(time) rounds. A sequence whose
    decays above 1 in size multiply to more than the dtype holds runs step by step instead, since
    their product is inf where the states need not be. Any mask works (mask class: any): right and
    left padding, holes, empty rows.

    Args:
      x: `[batch, time, feature...]`, floating or complex: what is added to the state.
      decay: of the shape of `x`: what the state is multiplied by.
      carry: `h [batch, feature...]`; zeros where None. At least float32 (complex64), in and out.
      mask, reverse, segments, resets: as in `lstm`.

    Returns:
      `(carry, (y, mask))`: the state after the last real step, and `y [batch, time, feature...]` in
      the common dtype of `x` and `decay`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, decay = jnp.array([[1.0, 1.0, jnp.nan, 1.0]]), jnp.full((1, 4), 2.0)
      >>> mask = jnp.array([[True, True, False, True]])
      >>> carry, (h, _) = jm.recurrent.linear(x, mask, decay)
      >>> carry.tolist(), h.tolist()
      ([7.0], [[1.0, 3.0, 0.0, 7.0]])

    Source: Blelloch, 1990, Prefix sums and their applications; Martin and Cundy, 2018,
    arXiv:1709.04057.
    """
    x, mask, starts = masked_scan.with_starts(x, mask, segments, resets, "linear")
    decay = _check.array(decay, "decay", "linear")
    for array, name in ((x, "x"), (decay, "decay")):
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            raise TypeError(
                f"linear: `{name}` must be floating or complex, got dtype {array.dtype}."
            )
    _check.shape(decay, x.shape, "the shape of `x`", "linear", "decay")
    reverse = _check.flag(reverse, "linear", "reverse")
    return _linear(decay, x, mask, starts, _carry(decay, x, carry), reverse=reverse)


def _carry(a: Array, b: Array, carry: ArrayLike | None) -> Array:
    shape = b.shape[:1] + b.shape[2:]
    # float32 and complex64 where that is wider; complex stays complex.
    dtype = common_dtype(a.dtype, b.dtype, jnp.float32)
    if carry is None:
        return jnp.zeros(shape, dtype)
    carry = _check.array(carry, "carry", "linear")
    _check.shape(carry, shape, "[batch, feature...]", "linear", "carry")
    is_real = not jnp.issubdtype(dtype, jnp.complexfloating)
    if not jnp.issubdtype(carry.dtype, jnp.floating if is_real else jnp.inexact):
        raise TypeError(
            f"linear: `carry` must be floating, or complex where `x` or `decay` is, got dtype "
            f"{carry.dtype}."
        )
    return carry.astype(common_dtype(dtype, carry.dtype))


# From here on h = a h + b.
@functools.partial(jax.jit, static_argnames="reverse")
def _linear(
    a: Array, b: Array, mask: Mask, starts: StepMask | None, carry: Array, *, reverse: bool
) -> tuple[Array, Pair]:
    dtype = common_dtype(a.dtype, b.dtype)
    # A masked step multiplies by 1 and adds 0, so the state passes through unchanged.
    a = ops.fill(a, mask, 1)[0].astype(carry.dtype)
    b = ops.fill(b, mask, 0)[0].astype(carry.dtype)
    if not a.shape[1]:
        return carry, (b.astype(dtype), mask)
    first, last = (-1, 0) if reverse else (0, -1)
    after = None
    if starts is not None and reverse:
        # The boundary lies before the step, so going backward it comes after.
        after = starts[:, 0]
        starts = jnp.pad(starts[:, 1:], ((0, 0), (0, 1)))
    entering = carry if starts is None else _cleared(carry, starts[:, first])
    b = b.at[:, first].add(a[:, first] * entering)
    with jax.named_scope("jaxmask.linear"):
        h = _states(a, b, starts, reverse)
    carry = h[:, last] if after is None else _cleared(h[:, last], after)
    return carry, (ops.fill(h, mask)[0].astype(dtype), mask)


def _cleared(x: Array, where: Array) -> Array:
    return jnp.where(_mask_ops.expand(where, x.ndim), jnp.zeros((), x.dtype), x)


def _states(a: Array, b: Array, starts: StepMask | None, reverse: bool) -> Array:
    """The states after each step, from h = 0."""
    # inf times a state of 0 would be nan. Per sequence, so that none changes the rounding of
    # another.
    overflows = _growth(jax.lax.stop_gradient(a), starts, reverse) > jnp.finfo(a.dtype).max
    h = _at_once(jnp.where(overflows, 1, a), b, starts, reverse)
    return jax.lax.cond(
        _any(overflows), lambda: jnp.where(overflows, _by_step(a, b, starts, reverse), h), lambda: h
    )


def _growth(a: Array, starts: StepMask | None, reverse: bool) -> Array:
    """A bound on the products of consecutive `a` that end at each step of a sequence."""
    size = jnp.maximum(abs(a), 1)
    if starts is None:
        return jnp.prod(size, axis=1, keepdims=True)

    def compose(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        (size_1, cut_1), (size_2, cut_2) = left, right
        return jnp.where(cut_2, size_2, size_1 * size_2), cut_1 | cut_2

    parts = (size, _mask_ops.expand(starts, a.ndim))
    return jax.lax.associative_scan(compose, parts, reverse=reverse, axis=1)[0]


@jax.custom_batching.custom_vmap
def _any(x: Array) -> Array:
    return jnp.any(x)


@_any.def_vmap
def _any_of_all(size: int, is_mapped: list[bool], x: Array) -> tuple[Array, bool]:
    """One answer for a whole mapped axis: under `vmap`, `cond` would run both branches."""
    return _any(x), False


def _by_step(a: Array, b: Array, starts: StepMask | None, reverse: bool) -> Array:
    """The recurrence step by step, from h = 0."""

    def step(h: Array, inputs: tuple[Array, Array, StepMask | None]) -> tuple[Array, Array]:
        a_t, b_t, start = inputs
        h = a_t * (h if start is None else _cleared(h, start)) + b_t
        return h, h

    inputs = jax.tree.map(masked_scan.time_first, (a, b, starts))
    # `zeros_like`, so that in a `shard_map` the zeros vary over axes as the step does.
    _, h = jax.lax.scan(step, jnp.zeros_like(b[:, 0]), inputs, reverse=reverse)
    return masked_scan.time_first(h)


def _at_once(a: Array, b: Array, starts: StepMask | None, reverse: bool) -> Array:
    """The composition of h -> a h + b over all steps up to each one, from h = 0."""

    def compose(left: tuple[Array, ...], right: tuple[Array, ...]) -> tuple[Array, ...]:
        (a_1, b_1, *cut_1), (a_2, b_2, *cut_2) = left, right
        if not cut_2:
            return a_1 * a_2, a_2 * b_1 + b_2
        # What lies before a start is replaced, not multiplied by 0: it may hold nan.
        cut = cut_2[0]
        a_1, b_1 = jnp.where(cut, 1, a_1), jnp.where(cut, 0, b_1)
        return a_1 * a_2, a_2 * b_1 + b_2, cut_1[0] | cut

    parts = (a, b) if starts is None else (a, b, _mask_ops.expand(starts, a.ndim))
    return jax.lax.associative_scan(compose, parts, reverse=reverse, axis=1)[1]
