"""Compare a ragged function with the function on each row alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _compare
from jaxmask._report import Report
from jaxmask._types import Array
from jaxmask.ragged._arguments import Arguments, compacted
from jaxmask.ragged._errors import RaggedTraceError, UnsupportedPrimitiveError


def compare(ragged: Any, call: Arguments, tolerance: float) -> Report[str]:
    """Run both on one row of each length, and report the differences."""
    call = _with_short_rows(compacted(call), ragged.min_length, ragged.multiple_of)
    lengths = {name: np.sum(mask, 1) for name, mask in call.masks.items()}
    rows: dict[tuple[int, ...], int] = {}
    for row in range(call.batch):
        counts = tuple(int(length[row]) for length in lengths.values())
        if all(n >= ragged.min_length and n % ragged.multiple_of == 0 for n in counts):
            rows.setdefault(counts, row)
    call = _select_rows(call, list(rows.values()))
    findings: list[str] = []
    try:
        batch = _of_batch(ragged, call) if rows else None
    except (RaggedTraceError, UnsupportedPrimitiveError) as error:
        return _report(ragged.f, [str(error)], sorted(rows))
    for counts in sorted(rows):
        row, at = list(rows).index(counts), f"at {_length_text(counts)}"
        try:
            alone = _of_row(ragged.f, call, row, dict(zip(lengths, counts, strict=True)))
        except Exception as error:
            findings.append(f"the row alone raises {type(error).__name__} {at}: {error}")
            continue
        findings += _differences(call, batch, alone, row, at, tolerance)
    return _report(ragged.f, findings, sorted(rows))


def _report(f: Any, findings: list[str], lengths: list[tuple[int, ...]]) -> Report[str]:
    name, tried = _check.name_of(f), tuple(map(_length_text, lengths))
    verdict = "it differs from the row alone" if findings else "equal to the row alone"
    lines = [f"ragged_vmap({name}).check: {verdict}."]
    lines += [f"- {finding}" for finding in findings]
    lines.append(f"Compared at {', '.join(tried)}.")
    return Report(name, tuple(findings), tried, text="\n".join(lines))


def _length_text(lengths: tuple[int, ...]) -> str:
    return f"length {' x '.join(map(str, lengths))}"


def _with_short_rows(call: Arguments, min_length: int, multiple: int) -> Arguments:
    """Append copies of the longest row, cut to the three shortest lengths that `f` takes."""
    if not call.batch:
        return call
    total = sum(np.sum(mask, 1) for mask in call.masks.values())
    longest, low = int(np.argmax(total)), -(-min_length // multiple) * multiple
    wanted = [low, low + multiple, low + 2 * multiple]
    order = np.concatenate([np.arange(call.batch), np.full(len(wanted), longest)])
    extended = _select_rows(call, list(order))
    for name, mask in call.masks.items():
        short = [np.arange(mask.shape[1]) < n for n in wanted]
        limits = np.stack([*np.ones((call.batch, mask.shape[1]), bool), *short])
        extended.masks[name] = extended.masks[name] & limits
    return extended


def _select_rows(call: Arguments, rows: Sequence[int]) -> Arguments:
    index = np.asarray(rows, np.int32)
    chosen = {name: mask[index] for name, mask in call.masks.items()}
    arrays = [array[index] for array in call.arrays]
    return replace(call, arrays=arrays, masks=chosen, batch=len(index), given=True)


# ------------------------------------------------------------------------- both sides


def _of_batch(ragged: Any, call: Arguments) -> tuple[Any, list[Array], list[list[Array]]]:
    """Values, gradients in the arrays, and for each row its gradients in the shared arguments."""

    def totals(arrays: list[Array], shared: list[Array]) -> tuple[Array, Any]:
        given = replace(call, shared=_compare.merged(call.shared, shared))
        y, _ = ragged.run(given, _compare.merged(call.arrays, arrays))
        return jax.vmap(_compare.weighted_sum)(y), y

    of_rows, pull, y = jax.vjp(
        totals, _compare.floats(call.arrays), _compare.floats(call.shared), has_aux=True
    )
    # Row by row: in a sum, the nan of one row would hide the others.
    of_shared = [pull(one)[1] for one in jnp.eye(call.batch, dtype=of_rows.dtype)]
    return y, pull(jnp.ones_like(of_rows))[0], of_shared


def _of_row(f: Any, call: Arguments, row: int, lengths: dict[str, int]) -> tuple[Any, Any, Any]:
    """Values and gradients of the function on one row."""
    arrays = [
        array[row] if name is None else array[row, : lengths[name]]
        for array, name in zip(call.arrays, call.names, strict=True)
    ]

    def total(floats: list[Array], shared: list[Array]) -> tuple[Array, Any]:
        given = replace(call, shared=_compare.merged(call.shared, shared))
        y = jax.tree.map(jnp.asarray, f(*given.rebuild(_compare.merged(arrays, floats))))
        return _compare.weighted_sum(y), y

    slopes = jax.grad(total, (0, 1), has_aux=True)(
        _compare.floats(arrays), _compare.floats(call.shared)
    )
    (of_arrays, of_shared), y = slopes
    return y, of_arrays, of_shared


# ------------------------------------------------------------------------ differences


def _differences(
    call: Arguments, batch: Any, alone: Any, row: int, at: str, tolerance: float
) -> list[str]:
    (y, gradients, of_shared), (values, slopes, shared_slopes) = batch, alone
    same = bool(jax.tree.structure(y) == jax.tree.structure(values))  # type: ignore[operator]
    if not same:
        return [f"the results have another structure {at}"]
    pairs = zip(jax.tree.leaves(y), jax.tree.leaves(values), strict=True)
    labelled = [("value", ours[row], theirs) for ours, theirs in pairs]
    names = [f"gradient of argument {path}" for path in _paths(call)]
    ours_all = [*(g[row] for g in gradients), *of_shared[row]]
    labelled += zip(names, ours_all, [*slopes, *shared_slopes], strict=True)
    found = []
    for label, ours, theirs in labelled:
        text = _compare.difference(np.asarray(ours), np.asarray(theirs), tolerance)
        if text:
            found.append(f"{label} {at}: {text}")
    return found


def _paths(call: Arguments) -> list[str]:
    """The path in the arguments of each leaf with a gradient, those of `arrays` first."""
    leaves = jax.tree.unflatten(call.tree, range(len(call.shared)))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(leaves)]
    texts = [f"{path[0].idx}{jax.tree_util.keystr(path[1:])}" for path in paths]
    arrays = iter(call.arrays)
    of_arrays: list[str] = []
    of_shared: list[str] = []
    for text, leaf, is_shared in zip(texts, call.shared, call.is_shared, strict=True):
        if _compare.is_float(leaf if is_shared else next(arrays)):
            (of_shared if is_shared else of_arrays).append(text)
    return of_arrays + of_shared
