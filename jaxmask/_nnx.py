"""Flax modules as pure functions, for tools that run them: the one place outside `nn` for Flax."""

import contextlib
import functools
import inspect
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from flax import nnx

from jaxmask._types import PyTree

Call: TypeAlias = Callable[..., tuple[Any, PyTree]]


def is_module(fn: Any) -> bool:
    return isinstance(fn, nnx.Module)


def takes(module: Any, inputs: int, *, with_mask: bool = False) -> bool:
    """Whether a call takes so many inputs, the last of them a mask.

    A mask must not land in an option such as `out_sharding`. An `nnx.Sequential` hands on all that
    it is given to its first layer.
    """
    if isinstance(module, nnx.Sequential) and len(module.layers):
        return takes(module.layers[0], inputs, with_mask=with_mask)
    call, own = (call_of(type(module)), [module]) if is_module(module) else (module, [])
    if call is None:
        return False
    signature = inspect.signature(call)
    try:
        bound = signature.bind(*own, *[None] * inputs)
    except TypeError:
        return False
    name = list(bound.arguments)[-1]
    is_option = signature.parameters[name].default is not inspect.Parameter.empty
    is_for_masks = name == "m" or any(word in name for word in ("mask", "segment", "valid"))
    return is_for_masks or not (with_mask and is_option)


def functional(module: nnx.Module) -> tuple[PyTree, Call]:
    """Parameters, and a pure `call(params, *args) -> (output, batch statistics after it)`.

    Everything that is no parameter (random streams, statistics) starts from the module's own at
    every call, and the module itself never changes.
    """
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)  # type: ignore[misc]

    def call(params: PyTree, *args: Any) -> tuple[Any, PyTree]:
        # Without `copy` the merged module would write into the variables of `rest` itself.
        merged: Any = nnx.merge(graphdef, params, rest, copy=True)
        output = merged(*args)
        return output, nnx.state(merged, nnx.BatchStat)

    return params, call


def table_rows(fn: Any) -> list[int]:
    """The numbers of rows of each `nnx.Embed` that a module holds, or a function closes over."""
    held = [fn]
    if inspect.isfunction(fn):
        with contextlib.suppress(ValueError):  # a name that is not bound yet
            found = inspect.getclosurevars(fn)
            held = [*found.nonlocals.values(), *found.globals.values()]
    modules = (module for module in held if is_module(module))
    tables = (inside for module in modules for _, inside in nnx.iter_modules(module))
    rows = {table.num_embeddings for table in tables if isinstance(table, nnx.Embed)}
    return sorted(rows - {1})  # a single row is taken for every id


def changed_in(error: Exception) -> str:
    """The path of the variable that an error of Flax says cannot change; "" if unknown."""
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
    variable = frames[-1].get("self") if frames else None
    if not isinstance(variable, nnx.Variable):
        return ""
    for module in (value for frame in frames for value in frame.values() if is_module(value)):
        for path, value in nnx.iter_graph(module):
            if value is variable:
                return f"`{'.'.join(map(str, path))}` of `{type(module).__name__}`"
    return ""


def detached(module: nnx.Module) -> tuple[Any, PyTree]:
    """A module as `(structure, arrays)`, from which `attached` makes copies."""
    return nnx.split(module)


def attached(structure: Any, arrays: PyTree) -> Any:
    """A new module, with variables of its own, so that no call reaches those of another."""
    return nnx.merge(structure, arrays, copy=True)


def paths(module: nnx.Module) -> dict[int, str]:
    """The path of every module inside, `layers[2].attention`, by its `id`; "" for itself."""
    return {
        id(inside): "".join(
            f"[{key}]" if isinstance(key, int) else f".{key}" for key in path
        ).removeprefix(".")
        for path, inside in nnx.iter_modules(module)
    }


def rename(module: nnx.Module, name: str) -> None:
    """Make a module, and all inside, unlike any that JAX has traced before."""
    inside: Any
    for _, inside in nnx.iter_modules(module):
        if call_of(type(inside)) is not None:
            inside._traced_as = name


Around: TypeAlias = Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
_watching = threading.RLock()


@contextlib.contextmanager
def watched(module: nnx.Module, around: Around) -> Iterator[None]:
    """Let `around(layer, call, args, kwargs)` run each call of a layer of the module's classes.

    Only calls of this thread go through it: those of others run as always, and a second watcher
    waits. The classes are as they were afterwards, whatever is raised.
    """
    classes = {type(inside) for _, inside in nnx.iter_modules(module)}
    with _watching:
        open_to = [threading.get_ident()]
        calls: dict[Any, Any] = {
            kind: call for kind in classes if (call := call_of(kind)) is not None
        }
        own = {kind for kind in calls if "__call__" in vars(kind)}
        try:
            for kind, call in calls.items():
                kind.__call__ = _through(call, around, open_to)
            yield
        finally:
            open_to.clear()  # jit may have kept a wrapped call
            for kind, call in calls.items():
                if kind in own:
                    kind.__call__ = call
                elif "__call__" in vars(kind):  # it was inherited
                    del kind.__call__


def call_of(kind: type) -> Any:
    """The `__call__` that instances of a class have; None without one."""
    return next((vars(base)["__call__"] for base in kind.__mro__ if "__call__" in vars(base)), None)


def _through(call: Callable[..., Any], around: Around, open_to: list[int]) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapper(layer: Any, /, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() not in open_to:
            return call(layer, *args, **kwargs)
        return around(layer, functools.partial(call, layer), args, kwargs)

    return wrapper
