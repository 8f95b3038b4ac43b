"""Compare a ragged function with the function on each row alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check
from jaxmask._types import Array, PyTree
from jaxmask.ragged._arguments import Arguments, compacted
from jaxmask.ragged._errors import RaggedTraceError, UnsupportedPrimitiveError


@dataclass(frozen=True)
class Report:
    """What a comparison with each row alone found. `str()` of it is the text.

    Attributes:
      name: of the function.
      findings: a line for each difference.
      tried: the lengths that were compared.

    Example:
      >>> import jaxmask as jm
      >>> def f(row):
      ...     return row * 2 if str(row.shape[0]) == "2" else row
      >>> report = jm.ragged_vmap(f).check(*jm.pad_sequences([[1.0, 2.0, 3.0], [4.0]]))
      >>> print(report)
      ragged_vmap(function `f`).check: it differs from the row alone.
      - value at length 2: expected 2, got 1
      - gradient of argument 0 at length 2: expected 1.08, got 0.54
      Compared at lengths 1, 2, 3.
    """

    name: str
    findings: tuple[str, ...]
    tried: tuple[tuple[int, ...], ...]

    @property
    def ok(self) -> bool:
        """Whether nothing differs in what was tried."""
        return not self.findings

    def __str__(self) -> str:
        verdict = "equal to the row alone" if self.ok else "it differs from the row alone"
        lengths = ", ".join(_lengths_text(lengths) for lengths in self.tried)
        lines = [f"ragged_vmap({self.name}).check: {verdict}."]
        lines += [f"- {finding}" for finding in self.findings]
        return "\n".join([*lines, f"Compared at lengths {lengths}."])


def _lengths_text(lengths: tuple[int, ...]) -> str:
    return " x ".join(map(str, lengths))


def compare(ragged: Any, call: Arguments, tolerance: float) -> Report:
    """Run both, row by row."""
    call = _with_short_rows(compacted(call), ragged.min_length, ragged.multiple_of)
    lengths = {name: np.sum(mask, 1) for name, mask in call.masks.items()}
    rows: dict[tuple[int, ...], int] = {}
    for row in range(call.batch):
        counts = tuple(int(length[row]) for length in lengths.values())
        if all(n >= ragged.min_length and n % ragged.multiple_of == 0 for n in counts):
            rows.setdefault(counts, row)
    # One row of each length is enough, and a batch of them is small.
    call = _chosen(call, list(rows.values()))
    findings: list[str] = []
    name, tried = _check.name_of(ragged.f), tuple(sorted(rows))
    try:
        batch = _of_batch(ragged, call) if rows else None
    except (RaggedTraceError, UnsupportedPrimitiveError) as error:
        return Report(name, (str(error),), tried)
    for counts in tried:
        row = list(rows).index(counts)
        at = f"at length {_lengths_text(counts)}"
        try:
            alone = _of_row(ragged.f, call, row, dict(zip(lengths, counts, strict=True)))
        except Exception as error:
            findings.append(f"the row alone raises {type(error).__name__} {at}: {error}")
            continue
        findings += _differences(call, batch, alone, row, at, tolerance)
    return Report(name, tuple(findings), tried)


def _with_short_rows(call: Arguments, least: int, multiple: int) -> Arguments:
    """Append copies of the longest row, cut to the first lengths that the function takes."""
    if not call.batch:
        return call
    total = sum(np.sum(mask, 1) for mask in call.masks.values())
    longest, low = int(np.argmax(total)), -(-least // multiple) * multiple
    wanted = [low, low + multiple, low + 2 * multiple]
    order = np.concatenate([np.arange(call.batch), np.full(len(wanted), longest)])
    result = _chosen(call, list(order))
    for name, mask in call.masks.items():
        short = [np.arange(mask.shape[1]) < n for n in wanted]
        limits = np.stack([*np.ones((call.batch, mask.shape[1]), bool), *short])
        result.masks[name] = result.masks[name] & limits
    return result


def _chosen(call: Arguments, rows: Sequence[int]) -> Arguments:
    index = np.asarray(rows, np.int32)
    chosen = {name: mask[index] for name, mask in call.masks.items()}
    arrays = [array[index] for array in call.arrays]
    return replace(call, arrays=arrays, masks=chosen, batch=len(index), given=True)


# ------------------------------------------------------------------------- both sides


def _of_batch(ragged: Any, call: Arguments) -> tuple[Any, list[Array], list[list[Array]]]:
    """Values, gradients in the arrays, and for each row those in what all rows share."""

    def totals(arrays: list[Array], shared: list[Array]) -> tuple[Array, Any]:
        given = replace(call, shared=_merged(call.shared, shared))
        y, _ = ragged.run(given, _merged(call.arrays, arrays))
        return jax.vmap(weigh)(y), y

    of_rows, pull, y = jax.vjp(totals, _floats(call.arrays), _floats(call.shared), has_aux=True)
    # Row by row, since in their sum the nan of one would hide all others.
    of_shared = [pull(one)[1] for one in jnp.eye(call.batch, dtype=of_rows.dtype)]
    return y, pull(jnp.ones_like(of_rows))[0], of_shared


def _of_row(f: Any, call: Arguments, row: int, lengths: dict[str, int]) -> tuple[Any, Any, Any]:
    """Values and gradients of the function on one row."""
    arrays = [
        array[row] if name is None else array[row, : lengths[name]]
        for array, name in zip(call.arrays, call.names, strict=True)
    ]

    def total(floats: list[Array], shared: list[Array]) -> tuple[Array, Any]:
        given = replace(call, shared=_merged(call.shared, shared))
        y = jax.tree.map(jnp.asarray, f(*given.rebuild(_merged(arrays, floats))))
        return weigh(y), y

    slopes = jax.grad(total, (0, 1), has_aux=True)(_floats(arrays), _floats(call.shared))
    (of_arrays, of_shared), y = slopes
    return y, of_arrays, of_shared


def _is_float(leaf: Any) -> bool:
    """Whether a leaf has a gradient. Shared ones may be anything, also text."""
    if not isinstance(leaf, float | np.ndarray | np.generic | jax.Array):
        return False
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def _floats(leaves: Sequence[Any]) -> list[Array]:
    return [jnp.asarray(leaf) for leaf in leaves if _is_float(leaf)]


def _merged(leaves: Sequence[Any], floats: Sequence[Array]) -> list[Any]:
    inside = iter(floats)
    return [next(inside) if _is_float(leaf) else leaf for leaf in leaves]


def weigh(y: PyTree) -> Array:
    """A sum of all floats in which each place has a weight of its own, the same at any size.

    Example:
      >>> round(float(weigh(jnp.ones(2))), 3)
      -0.126
    """
    total = jnp.zeros(())
    for leaf in jax.tree.leaves(y):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            angle = jnp.ones(leaf.shape)
            for axis in range(leaf.ndim):
                angle += (1.3 - 0.4 * axis) * jax.lax.broadcasted_iota(
                    jnp.float32, leaf.shape, axis
                )
            total += jnp.sum(leaf * jnp.cos(angle))
    return total


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
    places = [f"gradient of argument {place}" for place in _places(call)]
    ours_all = [*(g[row] for g in gradients), *of_shared[row]]
    labelled += zip(places, ours_all, [*slopes, *shared_slopes], strict=True)
    found = []
    for label, ours, theirs in labelled:
        text = _difference(np.asarray(ours), np.asarray(theirs), tolerance)
        if text:
            found.append(f"{label} {at}: {text}")
    return found


def _places(call: Arguments) -> list[str]:
    """Where in the arguments each leaf with a gradient stands, those of `arrays` first."""
    numbers = jax.tree.unflatten(call.tree, range(len(call.shared)))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(numbers)]
    texts = [f"{path[0].idx}{jax.tree_util.keystr(path[1:])}" for path in paths]
    arrays = iter(call.arrays)
    of_arrays: list[str] = []
    of_shared: list[str] = []
    for text, leaf, is_shared in zip(texts, call.shared, call.is_shared, strict=True):
        if _is_float(leaf if is_shared else next(arrays)):
            (of_shared if is_shared else of_arrays).append(text)
    return of_arrays + of_shared


def _difference(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> str:
    """The worst entry, or nothing; nan is equal to nan alone, and padding to 0."""
    if ours.ndim != theirs.ndim or any(
        a < b for a, b in zip(ours.shape, theirs.shape, strict=True)
    ):
        return f"expected shape {theirs.shape}, got {ours.shape}"
    expected = np.zeros_like(ours)
    expected[tuple(slice(0, size) for size in theirs.shape)] = theirs
    if not np.issubdtype(theirs.dtype, np.inexact):
        wrong = ours != expected
    else:
        finite = theirs[np.isfinite(theirs)]
        scale = max(1.0, float(np.max(np.abs(finite), initial=0)))
        wrong = ~np.isclose(ours / scale, expected / scale, rtol=0, atol=tolerance, equal_nan=True)
    if not wrong.any():
        return ""
    place = tuple(int(k) for k in np.argwhere(wrong)[0])
    return f"expected {expected[place]:.3g}, got {ours[place]:.3g}"
