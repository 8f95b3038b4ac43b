"""Compare a function under `skip_padding` with the function on the batch as it is."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _compare, _mask_ops
from jaxmask._report import Report
from jaxmask._types import Array, Mask
from jaxmask.skip._arguments import Call, is_mask
from jaxmask.skip._plan import WHERE, Plan


def compare(skip: Any, call: Call | None, plan: Plan, tolerance: float) -> Report[str]:
    """Run both on the batch as given and on one whose groups run at every length."""
    name = _check.name_of(skip.f)
    if call is None:
        text = f"{WHERE}({name}).check: `f` runs as it is: {plan.reason}."
        return Report(name, (), (), (plan.reason,), text=text)
    findings: list[str] = []
    lengths = plan.lengths
    if plan.sequences:  # several of these fit into a packed row
        lengths = tuple(sorted({-(-lengths[-1] // n) for n in (1, 2, 4)}))
    calls = {"the batch as given": call, f"rows cut to {lengths}": _shortened(call, lengths)}
    for tried, changed in calls.items():
        try:
            findings += _differences(skip, changed, tried, tolerance)
        except Exception as error:
            findings.append(f"{type(error).__name__} with {tried}: {error}")
    verdict = "it differs from `f`" if findings else "equal to `f`"
    lines = [f"{WHERE}({name}).check: {verdict}.", *(f"- {finding}" for finding in findings)]
    of = "packed rows at once" if plan.sequences else "rows in a group"
    lines.append(f"Compared with {' and '.join(calls)}, {plan.rows} {of}.")
    return Report(name, tuple(findings), tuple(calls), text="\n".join(lines))


def _shortened(call: Call, lengths: tuple[int, ...]) -> Call:
    """The same batch with fewer real steps: as many rows for each length as there are."""
    arrays = call.arrays()
    mask = arrays.steps[call.mask_at]
    batch, time = mask.shape
    limit = np.array(lengths)[np.arange(batch) * len(lengths) // batch]
    arrays.steps[call.mask_at] = jnp.where(
        np.arange(time) < limit[:, None], mask, jnp.zeros_like(mask)
    )
    arguments, _ = call.rebuild(arrays)
    return replace(call, leaves=tuple(jax.tree.leaves(arguments)))


def _differences(skip: Any, call: Call, tried: str, tolerance: float) -> list[str]:
    arguments, keywords = call.rebuild(call.arrays())
    ours = _values_and_gradients(skip, arguments)  # first, since its errors say more
    plain = _values_and_gradients(lambda *a: skip.f(*a, **keywords), arguments)
    same = bool(jax.tree.structure(plain) == jax.tree.structure(ours))  # type: ignore[operator]
    if not same:
        return [f"the results have another structure with {tried}"]
    found = []
    for (path, expected), got in zip(
        jax.tree_util.tree_leaves_with_path(plain), jax.tree.leaves(ours), strict=True
    ):
        text = _compare.difference(np.asarray(got), np.asarray(expected), tolerance)
        if text:
            kind, *rest = path
            found.append(f"{kind.key}{jax.tree_util.keystr(tuple(rest))} with {tried}: {text}")
    return found


def _values_and_gradients(f: Callable, arguments: tuple) -> dict[str, Any]:
    """The results at real steps, and gradients in all floating arguments."""
    leaves, tree = jax.tree.flatten(arguments)

    def total(floats: list[Array]) -> tuple[Array, Any]:
        results = _real(f(*jax.tree.unflatten(tree, _compare.merged(leaves, floats))))
        return _compare.weighted_sum(results), results

    gradients, results = jax.jit(jax.grad(total, has_aux=True))(_compare.floats(leaves))
    inside = iter(gradients)
    marked = [next(inside) if _compare.is_float(leaf) else None for leaf in leaves]
    return {"result": results, "gradient of argument": jax.tree.unflatten(tree, marked)}


def _real(results: Any) -> Any:
    """Results with 0 where their mask is False; a carry stays as it is."""
    first, second = results
    if not is_mask(second):
        return first, _real(second)
    return jax.tree.map(lambda y: _cleared(y, second), first), second


def _cleared(y: Array, mask: Mask) -> Array:
    if mask is None:
        return y
    real = _mask_ops.expand(_mask_ops.as_bool(mask), y.ndim)
    return jnp.where(real, y, jnp.zeros_like(y))
