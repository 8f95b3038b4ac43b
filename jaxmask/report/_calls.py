"""Which layers a model calls, in which order and with what, seen while it is traced once."""

import inspect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxmask import _nnx
from jaxmask._lines import is_own
from jaxmask._types import PyTree, Segments
from jaxmask.leak import Place
from jaxmask.report._arithmetic import Operations, count

_runs = itertools.count()


@dataclass(frozen=True)
class Ref:
    """An array of the program; below 0 in a loop, where it has many values or none here."""

    number: int
    shape: tuple[int, ...]
    dtype: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)


@dataclass
class Call:
    """One call of a layer; floating arrays are known by shape, masks and ids by value or `Ref`."""

    number: int
    parent: "Call | None"
    layer: Any
    path: str
    structure: Any
    arrays: PyTree
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    names: dict[str, Any]
    is_in_loop: bool
    place: Place | None = None
    out: Any = None
    inside: list["Call"] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The class."""
        return type(self.layer).__name__


@dataclass
class Trace:
    """The calls of a model; the first is that of the model itself."""

    calls: list[Call]
    operations: Operations
    values: dict[int, np.ndarray]


def trace(model: Any, inputs: tuple[Any, ...]) -> Trace:
    """Trace a copy of the model on its inputs; the model itself does not change."""
    structure, arrays = _nnx.detached(model)
    recorder = _Recorder(f"mask_flow_{next(_runs)}_")

    def program(inputs: tuple[Any, ...]) -> list[Any]:
        copied = _nnx.attached(structure, arrays)
        _nnx.rename(copied, recorder.marker)  # or JAX takes what it traced for the model itself
        recorder.start(_nnx.paths(copied))
        with _nnx.watched(copied, recorder.around):
            copied(*inputs)
        return recorder.arrays

    traced = jax.make_jaxpr(program)(inputs)
    values = _values(traced, jax.tree.leaves(inputs))
    return Trace(list(_kept(recorder.calls[0])), count(traced, recorder.marker), values)


def is_of_row(call: Call | None) -> bool:
    """Whether a layer runs on one row without padding, within `RaggedVmap`, at any length."""
    if call is None:
        return False
    sizes = (n for leaf in _shaped((call.args, call.kwargs, call.out)) for n in leaf.shape)
    return not all(isinstance(n, int) for n in sizes) or is_of_row(call.parent)


def _kept(call: Call) -> Iterator[Call]:
    """The calls in their order, without those of lengths that `RaggedVmap` only tries."""
    rows = {_kind(inside) for inside in call.inside if is_of_row(inside)}
    call.inside = [c for c in call.inside if is_of_row(c) or _kind(c) not in rows]
    yield call
    for inside in call.inside:
        yield from _kept(inside)


def _kind(call: Call) -> Any:
    ranks = tuple(leaf.ndim for leaf in _shaped((call.args, call.kwargs)))
    return type(call.layer), call.structure, ranks


def _shaped(values: PyTree) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(values) if hasattr(leaf, "shape")]


class _Recorder:
    def __init__(self, marker: str):
        self.marker = marker
        self.calls: list[Call] = []
        self.arrays: list[Any] = []

    def start(self, paths: dict[int, str]) -> None:
        self._paths = paths
        self._open: list[Call] = []
        self._refs: dict[int, Ref] = {}
        self._inside: list[Any] = []
        self._masks: set[int] = set()  # floating ones of attention, known by value
        self._outside = core.get_opaque_trace_state(convention="nnx")

    def around(self, layer: Any, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._open and self._open[-1].layer is layer:  # `super().__call__`
            return call(*args, **kwargs)
        entry = self._entry(layer, call, args, kwargs)
        self._open.append(entry)
        try:
            with jax.named_scope(f"{self.marker}{entry.number}"):
                out = call(*args, **kwargs)
        except Exception as error:
            if not getattr(error, "__notes__", None):
                given = ", ".join(described(a) for a in jax.tree.leaves((args, kwargs)))
                where = f"`{entry.path}`, " if entry.path else ""
                error.add_note(f"mask_flow: raised in {where}`{entry.name}`, called with {given}.")
            raise
        finally:
            self._open.pop()
        entry.out = self._noted(out)
        return out

    def _entry(self, layer: Any, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        parent = self._open[-1] if self._open else None
        structure, arrays = _nnx.detached(layer)
        self._masks |= {id(v) for n, v in _by_name(call, args, kwargs).items() if names_mask(n)}
        noted, noted_kwargs = self._noted(args), self._noted(kwargs)
        entry = Call(
            *(len(self.calls), parent, layer, self._path(layer, parent), structure, arrays),
            *(noted, noted_kwargs, _by_name(call, noted, noted_kwargs), self._is_inside()),
            _caller(),
        )
        self.calls.append(entry)
        if parent is not None:
            parent.inside.append(entry)
        return entry

    def _path(self, layer: Any, parent: Call | None) -> str:
        """Transformations such as `nnx.scan` run copies, found below the copy that they are in."""
        if id(layer) in self._paths:
            return self._paths[id(layer)]
        below = _nnx.paths(parent.layer).get(id(layer)) if parent is not None else None
        if parent is None or below is None:
            return f"<{type(layer).__name__}>"
        return ".".join(filter(None, (parent.path, below)))

    def _noted(self, values: PyTree) -> PyTree:
        return jax.tree.map(self._note, values)

    def _note(self, value: Any) -> Any:
        if not isinstance(value, jax.Array | np.ndarray):
            return value
        if jnp.issubdtype(value.dtype, jnp.inexact) and id(value) not in self._masks:
            return jax.ShapeDtypeStruct(value.shape, value.dtype)
        if not isinstance(value, jax.core.Tracer):
            return value
        if id(value) not in self._refs:
            number = -1 - len(self._inside) if self._is_inside() else len(self.arrays)
            (self._inside if number < 0 else self.arrays).append(value)  # and so it keeps its id
            self._refs[id(value)] = Ref(number, value.shape, value.dtype)
        return self._refs[id(value)]

    def _is_inside(self) -> bool:
        """Whether a loop, a branch or a transformation is being traced."""
        return core.get_opaque_trace_state(convention="nnx") != self._outside


def _caller() -> Place | None:
    """The line of the user's own code that calls a layer, within the program that is traced."""
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if (code.co_filename, code.co_name) == (__file__, "program"):
            return None
        if is_own(code.co_filename):
            return Place(code.co_filename, frame.f_lineno, code.co_qualname)
        frame = frame.f_back
    return None


def _by_name(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(inspect.signature(call).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):  # the call itself will say so
        return kwargs


def names_mask(name: Any) -> bool:
    """Whether an argument is a mask by its name."""
    return isinstance(name, str) and (name == "mask" or name.endswith("_mask"))


def described(value: Any) -> str:
    """An array as `float32[2,3]`, another value by its class."""
    if isinstance(value, Segments):
        return f"Segments[{','.join(map(str, value.ids.shape))}]"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    return type(value).__name__


def _values(traced: Any, inputs: list[Any]) -> dict[int, np.ndarray]:
    """The noted arrays, by running no more of the program than they need."""
    jaxpr = traced.jaxpr
    needed = {v for v in jaxpr.outvars if isinstance(v, core.Var)}
    eqns: list[Any] = []
    for eqn in reversed(jaxpr.eqns):
        if needed & set(eqn.outvars):
            eqns.insert(0, eqn)
            needed |= {v for v in eqn.invars if isinstance(v, core.Var)}
    smaller = core.ClosedJaxpr(jaxpr.replace(eqns=eqns, debug_info=jaxpr.debug_info), traced.consts)
    results = core.jaxpr_as_fun(smaller)(*inputs)
    return {number: np.asarray(value) for number, value in enumerate(results) if _plain(value)}


def _plain(value: Any) -> bool:
    return not jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended)
