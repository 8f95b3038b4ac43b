"""The arguments of a check or a proof as NumPy arrays, and how to call its function."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check
from jaxmask._types import PyTree, Segments
from jaxmask.leak._maskless import with_masks
from jaxmask.leak._outputs import path_of

WHERE = "leak.check"


@dataclass(frozen=True)
class Leaves:
    """The arrays of a pytree and their names."""

    arrays: list[np.ndarray]
    names: list[str]
    tree: Any

    @classmethod
    def of(cls, tree: PyTree, name: str) -> "Leaves":
        """Flatten a pytree; each leaf is named by `name` and its path."""
        paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
        names = [name + path_of(path) for path, _ in paths]
        return cls([leaf for _, leaf in paths], names, treedef)

    def on_host(self) -> "Leaves":
        """The same arrays in NumPy, in the dtypes that a function would get."""
        # Through JAX, which makes float32 of float64 unless it is told not to.
        return replace(self, arrays=[np.asarray(jnp.asarray(leaf)) for leaf in self.arrays])


def marks_of(mask: Any, where: str) -> tuple[np.ndarray, int | None]:
    """The mask as an array, and the number of segments of `Segments`."""
    if mask is None:
        raise ValueError(
            f"{where}: `mask` must say which steps are padding, got None. If every step is "
            "real, pass `jnp.ones(x.shape[:2], bool)`; the check appends padding itself."
        )
    if isinstance(mask, Segments):
        _refuse_traced(mask.ids, "mask", where)
        return np.asarray(mask.ids), mask.max_segments
    _refuse_traced(mask, "mask", where)
    return np.asarray(_check.boolean(mask, where)), None


def check_leaf(leaf: Any, mask: Any, name: str, where: str) -> None:
    """Refuse an array that is traced, holds no numbers, or does not fit its mask."""
    _refuse_traced(leaf, name, where)
    dtype = (
        jnp.asarray(leaf).dtype
        if mask is None
        else _check.pair(leaf, mask, where, name=name)[0].dtype
    )
    if not (jnp.issubdtype(dtype, np.number) or dtype == jnp.bool_):
        raise TypeError(f"{where}: `{name}` must hold numbers or booleans, got dtype {dtype}.")


def _refuse_traced(x: Any, name: str, where: str) -> None:
    if isinstance(x, jax.core.Tracer):
        raise TypeError(
            f"{where}: `{name}` is traced. The check looks at values: call it outside of `jit`, "
            "`vmap` and `grad`, with arrays."
        )


def plain(leaf: Any) -> Any:
    """An array; the numbers of a random key."""
    leaf = jnp.asarray(leaf)
    keys = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if keys else leaf


def callable_of(
    fn: Any, params: PyTree, where: str
) -> tuple[PyTree, Callable[..., tuple[PyTree, PyTree]]]:
    """Parameters (an empty tuple for none) and `call(params, x, mask) -> (output, statistics)`."""
    if "flax.nnx" in sys.modules:  # else `fn` is not a module, and Flax need not be imported
        from jaxmask import _nnx

        if _nnx.is_module(fn):
            if params is not None:
                raise ValueError(
                    f"{where}: `fn` is an nnx.Module, which holds its own parameters: leave "
                    "`params=` out."
                )
            params, call = _nnx.functional(fn)
            return params, with_masks(call, where) if _is_maskless(fn) else call
    if not callable(fn):
        raise TypeError(f"{where}: `fn` must be a function `fn(x, mask)`, got {type(fn).__name__}.")
    if params is None:
        return (), lambda _, x, mask: (fn(x, mask), ())
    return params, lambda params, x, mask: (fn(params, x, mask), ())


def name_of(fn: Any) -> str:
    """The function in words, and whether it gets the mask."""
    return _check.name_of(fn) + (", called without the mask" if _is_maskless(fn) else "")


def _is_maskless(fn: Any) -> bool:
    if "flax.nnx" not in sys.modules:
        return False
    from jaxmask import _nnx

    return _nnx.is_module(fn) and _nnx.takes(fn, 1) and not _nnx.takes(fn, 2, with_mask=True)


def first_line(error: Exception) -> str:
    """The type of an error and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
