"""Decompositions of the matrices in the last two axes: matrices do not see each other."""

import numpy as np

from jaxmask.leak._proof.domain import Value, union
from jaxmask.leak._proof.interpret import Step, rule_for


@rule_for(
    "cholesky", "cholesky_update", "eig", "eigh", "hessenberg", "householder_product", "lu",
    "lu_pivots_to_permutation", "qr", "geqrf", "geqp3", "schur", "svd", "symmetric_product",
    "triangular_solve", "tridiagonal", "tridiagonal_solve",
)  # fmt: skip
def matrices(step: Step) -> list[Value]:
    """Every result of a matrix depends on all of it."""
    lead = min(max(len(value.shape) - 2, 0) for value in step.ins)
    lead = min(lead, *(len(out.aval.shape) for out in step.equation.outvars))
    taints = []
    for value in step.ins:
        taint = step.over(value.taint, tuple(range(lead, len(value.shape))))
        taints.append(taint)
    found = union(step.ins[0].shape[:lead], taints)
    results = []
    for out in step.equation.outvars:
        shape = out.aval.shape
        taint = found
        if taint is not None:
            taint = np.broadcast_to(taint.reshape(taint.shape + (1,) * (len(shape) - lead)), shape)
        results.append(Value(shape, taint=taint))
    return results
