"""Factorisations and solvers: a ragged matrix becomes the corner of an identity matrix."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged._interpreter.context import along, select
from jaxmask.ragged._interpreter.interpret import REFUSED, Step, rule_for, run
from jaxmask.ragged._rules.calls import closed


def embedded(step: Step, operand: int, matrix: Array) -> Array:
    """A square matrix with the identity in its padding, which makes no factorisation singular."""
    shape = step.inputs[operand]
    axes = [len(shape) - 2, len(shape) - 1]
    eye = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    mask, reached = step.context.mask(shape, axes), step.context.reached
    if mask is not None:
        matrix = jnp.where(mask, matrix, eye)
    return matrix if reached is None else jnp.where(reached, matrix, eye)


@rule_for("cholesky")
def cholesky(step: Step, matrix: Array) -> Any:
    return step.repeat_first(step.bind(embedded(step, 0, matrix)))


@rule_for("triangular_solve")
def triangular_solve(step: Step, matrix: Array, right: Array) -> Any:
    """Solve, with 0 on the right-hand side of the identity."""
    rank = len(step.inputs[1])
    axis = rank - 2 if step.params["left_side"] else rank - 1
    right = step.fill(1, right, [axis], 0)
    return step.repeat_first(step.bind(embedded(step, 0, matrix), right))


@rule_for("lu")
def lu(step: Step, matrix: Array) -> Any:
    """Factorise: rows of padding hold 0 in the columns of the row, so they are never pivots."""
    results = step.bind(embedded(step, 0, matrix))
    pairs = zip(results, step.outputs, strict=True)
    return [step.context.repeat_first(value, shape) for value, shape in pairs]


@rule_for("lu_pivots_to_permutation")
def lu_pivots_to_permutation(step: Step, pivots: Array) -> Any:
    """The order of the rows, in which padding is swapped with itself."""
    shape = step.inputs[0]
    axis, itself = len(shape) - 1, step.context.positions(pivots.shape[-1])
    mask = step.context.mask(shape, [axis])
    if mask is not None:
        itself = along(itself, axis, pivots.shape).astype(pivots.dtype)
        pivots = select(mask, pivots, itself)
    size = step.context.size(step.params["permutation_size"])
    return step.repeat_first(step.bind(pivots, permutation_size=size))


@rule_for("custom_linear_solve")
def custom_linear_solve(step: Step, *values: Array) -> Any:
    """Keep the user's solver, and the one for the gradient.

    Both are linear functions of the real positions: operands and results hold 0 in the padding, and
    only the programs between see copies.
    """
    counts, jaxprs = step.params["const_lengths"], step.params["jaxprs"]
    total = sum(counts)
    parts, start = [], 0
    for count in counts:
        parts.append(values[start : start + count])
        start += count
    shapes, right = step.outputs, list(values[total:])
    if len(shapes) != len(right) or jaxprs.transpose_solve is None:
        raise step.refuse("It returns more than a solution, or has no solver for the gradient.")

    def linear(program: Any, constants: Sequence[Array]) -> Any:
        def apply(*arguments: Any) -> list[Array]:
            context, zipped = step.context.inside(), zip(arguments[-1], shapes, strict=True)
            context.linear = True
            filled = [context.repeat_first(x, shape) for x, shape in zipped]
            results = zip(run(context, closed(program), [*constants, *filled]), shapes, strict=True)
            return [context.fill(x, shape, None, 0) for x, shape in results]

        return apply

    multiply, _, solve, transposed = map(linear, jaxprs, parts)
    padded = [step.context.fill(x, s, None, 0) for x, s in zip(right, shapes, strict=True)]
    solved = jax.lax.custom_linear_solve(multiply, padded, solve, transposed)
    return [step.context.repeat_first(x, shape) for x, shape in zip(solved, shapes, strict=True)]


_NO_RULE = "eig eigh fft householder_product hessenberg qr schur svd tridiagonal"
REFUSED |= dict.fromkeys(_NO_RULE.split(), "No padding preserves the result of the row alone.")
