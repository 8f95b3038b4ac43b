"""The arguments of a call: which are cut along time, which go with their row, which are shared."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmask import _check, _keys
from jaxmask._types import Array, PyTree, Segments, StepMask
from jaxmask.skip._plan import WHERE

KINDS = ("shared", "row", "step", "row_ids")


@dataclass(frozen=True)
class Call:
    """The leaves of `(x, mask, *rest)`, sorted by what `skip_padding` does with them.

    Attributes:
      tree: the structure of the arguments.
      leaves: all leaves; those that move are replaced on `rebuild`.
      kinds: of each leaf, one of `KINDS`, or "weight": shared, traced and floating.
      mask_at: the place of the mask among the arrays by step.
      names_row_ids: whether the function takes the index of each row as `row_ids`.
    """

    tree: Any
    leaves: tuple[Any, ...]
    kinds: tuple[str, ...]
    mask_at: int
    names_row_ids: bool

    def arrays(self) -> "Arrays":
        """The arrays by step `[batch, time, ...]`, those by row `[batch, ...]`, and the weights."""
        found: dict[str, list[Array]] = {"step": [], "row": [], "weight": [], "shared": []}
        for leaf, kind in zip(self.leaves, self.kinds, strict=True):
            found["row" if kind == "row_ids" else kind].append(leaf)
        if self.names_row_ids:
            found["row"].append(row_ids(found["step"][0]))
        return Arrays(found["step"], found["row"], found["weight"], [])

    def rebuild(self, arrays: "Arrays") -> tuple[tuple, dict]:
        """Positional and keyword arguments of the function, with others in the place of arrays."""
        sources = {
            "step": iter(arrays.steps),
            "row": iter(arrays.rows),
            "weight": iter(arrays.weights),
        }
        sources["row_ids"] = sources["row"]
        leaves = [
            leaf if kind == "shared" else next(sources[kind])
            for leaf, kind in zip(self.leaves, self.kinds, strict=True)
        ]
        keywords = {"row_ids": next(sources["row"])} if self.names_row_ids else {}
        return jax.tree.unflatten(self.tree, leaves), keywords


class Arrays(NamedTuple):
    """What a program takes, and what its function captures."""

    steps: list[Any]
    rows: list[Any]
    weights: list[Any]
    captured: list[Any]

    def packed(self, mask_at: int, sequences: int) -> "Arrays":
        """With the types that packed rows have: `Segments`, and ids of sequences."""
        steps = list(self.steps)
        steps[mask_at] = Segments(steps[mask_at], sequences)
        ids = [a if a.ndim > 2 else a[..., None] for a in self.rows]
        return self._replace(steps=steps, rows=[_keys.SequenceIds(a) for a in ids])

    def real(self, mask_at: int) -> StepMask:
        """Where steps are real: by a boolean mask, or by the ids of `Segments`."""
        mask = self.steps[mask_at]
        return mask if mask.dtype == jnp.bool_ else mask > 0


def read(f: Callable, x: Any, mask: Any, rest: Sequence[Any], kinds: Any) -> Call:
    """Check the arguments and sort their leaves."""
    of_rest = [kinds] * len(rest) if isinstance(kinds, str) else list(kinds)
    if len(of_rest) != len(rest):
        raise ValueError(
            f"{WHERE}: `rest` must have one entry for each argument after the mask, {len(rest)}, "
            f"got {len(of_rest)}."
        )
    leaves = jax.tree.leaves(x)
    if not leaves:
        raise ValueError(f"{WHERE}: `x` must hold at least one array [batch, time, ...].")
    for leaf in leaves:
        _, mask = _check.pair(leaf, mask, WHERE, over_time=True)
    size = mask.shape
    for position, (value, kind) in enumerate(zip(rest, of_rest, strict=True), 2):
        axes = {"step": size, "shared": ()}.get(kind, size[:1])
        for leaf in jax.tree.leaves(value) if axes else ():
            array = _check.array(leaf, f"argument {position}", WHERE)
            if array.shape[: len(axes)] != axes:
                raise ValueError(
                    f'{WHERE}: argument {position} is by "{kind}", so its arrays must begin with '
                    f"the axes {axes}, got shape {array.shape}."
                )
    spread = [*["step"] * len(leaves), *["step"] * len(jax.tree.leaves(mask))]
    for value, kind in zip(rest, of_rest, strict=True):
        spread += [kind] * len(jax.tree.leaves(value))
    flat, tree = jax.tree.flatten((x, mask, *rest))
    arrays = [
        leaf if kind == "shared" else jnp.asarray(leaf)
        for leaf, kind in zip(flat, spread, strict=True)
    ]
    spread = [
        "weight" if kind == "shared" and _is_weight(leaf) else kind
        for leaf, kind in zip(arrays, spread, strict=True)
    ]
    names_ids = names_row_ids(f, (x, mask, *rest))
    return Call(tree, tuple(arrays), tuple(spread), len(leaves), names_ids)


def _is_weight(leaf: Any) -> bool:
    """Whether a shared leaf may have a gradient."""
    return isinstance(leaf, jax.core.Tracer) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def checked_kinds(rest: Any) -> Any:
    """`rest`, one kind for all further arguments or one for each."""
    for kind in (rest,) if isinstance(rest, str) else rest:
        _check.choice(kind, KINDS, WHERE, "rest")
    return rest if isinstance(rest, str) else tuple(rest)


def row_ids(x: PyTree) -> Array:
    """The index of each row; refused inside another `skip_padding`, whose groups have others."""
    return _keys.ids_of_rows(jax.tree.leaves(x)[0], WHERE)[:, 0]


def names_row_ids(f: Callable, arguments: Sequence[Any]) -> bool:
    """Whether `f` takes `row_ids`, and neither the call nor a `partial` gives them."""
    if isinstance(f, functools.partial) and "row_ids" in f.keywords:
        return False
    try:
        signature = inspect.signature(f)
        bound = signature.bind_partial(*arguments).arguments
    except (TypeError, ValueError):
        return False
    return "row_ids" in signature.parameters and "row_ids" not in bound


def is_mask(value: Any) -> bool:
    """Whether a result is a mask, or None."""
    if value is None or isinstance(value, Segments):
        return True
    return getattr(value, "dtype", None) == jnp.bool_
