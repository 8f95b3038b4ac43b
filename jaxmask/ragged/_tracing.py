"""Trace the function once, at symbolic lengths."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import export

from jaxmask.ragged import _errors as errors
from jaxmask.ragged._arguments import WHERE, Arguments
from jaxmask.ragged._interpreter import dims
from jaxmask.ragged._interpreter.context import Shape
from jaxmask.ragged._interpreter.patches import traced_sizes


@dataclass
class RowProgram:
    """A traced row function.

    Attributes:
      closed: its closed jaxpr.
      tree: the structure of its results.
      outputs: their logical shapes.
      sizes: the bounds of all sizes.
      symbols: for each length, the name of its symbol.
      lengths: for each length, its size: `multiple` times the symbol.
      multiple: what lengths are multiples of.
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


def trace(f: Callable[..., Any], call: Arguments, min_length: int, multiple: int) -> RowProgram:
    """Trace, and compare with traces at the shortest and the longest length."""
    scope, lengths, bounds, symbols = _symbols(call, min_length, multiple)
    sizes = dims.Sizes(bounds)

    def of_leaves(*leaves: Any) -> Any:
        return f(*call.rebuild(leaves))

    spans = {name: sizes.span(size) for name, size in lengths.items()}
    ends = [{name: span[k] for name, span in spans.items()} for k in (0, 1)]
    concrete = [_shapes(of_leaves, call, end) for end in ends]
    try:
        with traced_sizes(scope, dims.Sizes(_widened(bounds))):
            make = jax.make_jaxpr(of_leaves, return_shape=True)
            closed, results = make(*_specs(call, lengths))
    except Exception as error:
        raise errors.trace_error(error) from error
    outputs = [tuple(v.aval.shape) for v in closed.jaxpr.outvars]
    tree = jax.tree.structure(results)
    program = RowProgram(closed, tree, outputs, sizes, symbols, lengths, multiple)
    for k, result in enumerate(concrete):
        _compare(program, result, k)
    return program


def _symbols(call: Arguments, min_length: int, multiple: int) -> tuple[Any, dict, dict, dict]:
    """The scope of all lengths, and the size, bounds and symbol of each."""
    lengths: dict[str, Any] = {}
    bounds: dict[str, tuple[int, int]] = {}
    symbols: dict[str, str] = {}
    low = -(-min_length // multiple)
    for name, mask in call.masks.items():
        symbols[name] = name + "_inside" * dims.nesting()
        bounds[symbols[name]] = low, max(low, mask.shape[1] // multiple)
    limits = [f"{n} >= {low}" for n, (low, _) in bounds.items()]
    limits += [f"{n} <= {high}" for n, (_, high) in _widened(bounds).items()]
    scope = export.SymbolicScope(limits)
    named = export.symbolic_shape(", ".join(symbols.values()), scope=scope)
    lengths |= {n: d * multiple for n, d in zip(symbols, named, strict=True)}
    return scope, lengths, bounds, symbols


def _widened(bounds: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Make a symbol of each length, even if it can have a single value only.

    What is ragged must not depend on how far a batch is padded.
    """
    return {name: (low, max(high, low + 1)) for name, (low, high) in bounds.items()}


def _specs(call: Arguments, lengths: dict[str, Any]) -> list[jax.ShapeDtypeStruct]:
    """Shapes and dtypes of the row alone: no batch axis, and its own length."""
    return [
        jax.ShapeDtypeStruct(
            array.shape[1:] if name is None else (lengths[name], *array.shape[2:]), array.dtype
        )
        for array, name in zip(call.arrays, call.names, strict=True)
    ]


def _shapes(f: Callable, call: Arguments, lengths: dict[str, int]) -> Any:
    """The shapes of the results on a row of known length; errors here are the function's own."""
    try:
        return jax.eval_shape(f, *_specs(call, lengths))
    except Exception as error:
        if type(error).__name__ == "TraceContextError":
            raise errors.state_error(error) from error
        raise


def _compare(program: RowProgram, results: Any, bound: int) -> None:
    """Refuse a function whose results have other shapes at a known length than traced for any."""
    values = {name: program.sizes.bounds[name][bound] for name in program.symbols.values()}
    expected = [
        tuple(int(dims.evaluate(dim, values, dims.ARRAYS)) for dim in shape)
        for shape in program.outputs
    ]
    shapes = [tuple(leaf.shape) for leaf in jax.tree.leaves(results)]
    if jax.tree.structure(results) != program.tree or shapes != expected:
        lengths = ", ".join(str(value * program.multiple) for value in values.values())
        raise errors.RaggedTraceError(
            f"{WHERE}: on a row of length {lengths} the function returns shapes {shapes}, but "
            f"traced for any length it returns {expected}. It compares a length with a number in "
            "Python (`if x.shape[0] == 1`), which JAX answers with False while the length is a "
            "symbol. Write it without such a branch, or exclude the length by `min_length=`."
        )
