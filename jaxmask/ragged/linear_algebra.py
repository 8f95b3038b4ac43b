"""Factorisations and solutions: a ragged matrix stands in the corner of an identity matrix."""

from typing import Any

import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged.interpret import REFUSED, Step, rule_for


def embedded(step: Step, operand: int, matrix: Array) -> Array:
    """A square matrix, with the identity in its padding, on which no factorisation is singular."""
    shape = step.inputs[operand]
    axes = [len(shape) - 2, len(shape) - 1]
    eye = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    mask, live = step.context.mask(shape, axes), step.context.live
    if mask is not None:
        matrix = jnp.where(mask, matrix, eye)
    return matrix if live is None else jnp.where(live, matrix, eye)


@rule_for("cholesky")
def cholesky(step: Step, matrix: Array) -> Any:
    """The factor of the matrix in its corner."""
    return step.repeat_first(step.bind(embedded(step, 0, matrix)))


@rule_for("triangular_solve")
def triangular_solve(step: Step, matrix: Array, right: Array) -> Any:
    """Solve, with 0 on the right where the identity stands."""
    rank = len(step.inputs[1])
    axis = rank - 2 if step.params["left_side"] else rank - 1
    right = step.fill(1, right, [axis], 0)
    return step.repeat_first(step.bind(embedded(step, 0, matrix), right))


for _name in (
    "eig",
    "eigh",
    "svd",
    "qr",
    "schur",
    "hessenberg",
    "householder_product",
    "fft",
    "lu",
):
    REFUSED[_name] = "No padding leaves the result of the row alone in its place."
