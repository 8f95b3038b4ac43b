"""Trace the function once, at lengths that are symbols."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import export

from jaxmask.ragged import dims, errors
from jaxmask.ragged.arguments import WHERE, Arguments
from jaxmask.ragged.context import Shape
from jaxmask.ragged.substitutes import nesting, substituted


@dataclass
class Program:
    """A traced function.

    Attributes:
      closed: the jaxpr, on one row.
      tree: of its results.
      outputs: their logical shapes.
      sizes: the bounds of the lengths.
      symbols: for each length, its name in the sizes; a length of one value has none.
      lengths: for each length, its size in the program.
      multiple: lengths are this many times the symbol.
    """

    closed: Any
    tree: Any
    outputs: list[Shape]
    sizes: dims.Sizes
    symbols: dict[str, str]
    lengths: dict[str, Any]
    multiple: int

    def physical(self, name: str) -> int:
        """The length of the longest row that the function takes."""
        return self.sizes.span(self.lengths[name])[1]


def trace(f: Callable[..., Any], call: Arguments, least: int, multiple: int) -> Program:
    """Trace, and check against traces at known lengths.

    Example:
      >>> from jaxmask.ragged.arguments import read
      >>> import jax.numpy as jnp
      >>> call = read((jnp.ones((2, 4)), None), 0)
      >>> trace(lambda row: row.sum(), call, 1, 1).outputs
      [()]
    """
    lengths, bounds, symbols = _symbols(call, least, multiple)
    sizes, trees = dims.Sizes(bounds), []

    def flat(*leaves: Any) -> list[Any]:
        found, tree = jax.tree.flatten(f(*call.rebuild(leaves)))
        trees.append(tree)
        return found

    spans = {name: sizes.span(size) for name, size in lengths.items()}
    concrete = [_shapes(flat, call, {n: span[k] for n, span in spans.items()}) for k in (0, 1)]
    try:
        with substituted(sizes):
            closed = jax.make_jaxpr(flat)(*_specs(call, lengths))
    except Exception as error:
        raise errors.trace_error(error) from error
    outputs = [tuple(v.aval.shape) for v in closed.jaxpr.outvars]
    program = Program(closed, trees[-1], outputs, sizes, symbols, lengths, multiple)
    for k, shapes in enumerate(concrete):
        _compare(program, shapes, trees[k], k)
    return program


def _symbols(call: Arguments, least: int, multiple: int) -> tuple[dict, dict, dict]:
    """Sizes, bounds and symbols of all lengths. A length that has one value is a number."""
    lengths: dict[str, Any] = {}
    bounds: dict[str, tuple[int, int]] = {}
    symbols: dict[str, str] = {}
    low = -(-least // multiple)
    for name, mask in call.masks.items():
        high = max(low, mask.shape[1] // multiple)
        if low == high:
            lengths[name] = low * multiple
        else:
            symbols[name] = name + "_inside" * nesting()
            bounds[symbols[name]] = low, high
    limits = [f"{n} >= {low}" for n, (low, _) in bounds.items()]
    limits += [f"{n} <= {high}" for n, (_, high) in bounds.items()]
    if symbols:
        scope = export.SymbolicScope(limits)
        named = export.symbolic_shape(", ".join(symbols.values()), scope=scope)
        lengths |= {n: d * multiple for n, d in zip(symbols, named, strict=True)}
    return lengths, bounds, symbols


def _specs(call: Arguments, lengths: dict[str, Any]) -> list[jax.ShapeDtypeStruct]:
    """The row alone: no batch, and its own length."""
    return [
        jax.ShapeDtypeStruct(
            array.shape[1:] if name is None else (lengths[name], *array.shape[2:]), array.dtype
        )
        for array, name in zip(call.arrays, call.names, strict=True)
    ]


def _shapes(flat: Callable, call: Arguments, lengths: dict[str, int]) -> list[tuple[int, ...]]:
    """The shapes of the results on a row of known length. What the function raises there is its
    own error, and passes as it is.
    """
    try:
        return [tuple(r.shape) for r in jax.eval_shape(flat, *_specs(call, lengths))]
    except Exception as error:
        if type(error).__name__ == "TraceContextError":
            raise errors.state_error(error) from error
        raise


def _compare(program: Program, shapes: list, tree: Any, bound: int) -> None:
    """A function that asks `x.shape[0] == 3` gets False at a symbolic length: catch what shows."""
    values = {name: program.sizes.bounds[name][bound] for name in program.symbols.values()}
    expected = [
        tuple(int(dims.evaluate(dim, values, dims.ARRAYS)) for dim in shape)
        for shape in program.outputs
    ]
    if tree != program.tree or shapes != expected:
        lengths = ", ".join(str(value * program.multiple) for value in values.values())
        raise errors.RaggedTraceError(
            f"{WHERE}: on a row of length {lengths} the function returns shapes {shapes}, but its "
            f"program for any length says {expected}. It asks for one exact length in Python "
            "(`if x.shape[0] == 1`), which JAX answers with False where the length is not known. "
            "Write it without such a branch, or exclude the length by `min_length=`."
        )
