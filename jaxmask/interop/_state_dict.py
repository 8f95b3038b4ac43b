"""Weights by name, for a model that was written again by hand."""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxmask import _check
from jaxmask.interop import _weights as weights
from jaxmask.interop._plan import InteropWarning
from jaxmask.interop._torch_weights import Make, entries_of, inside

_WHERE = "load_state_dict"
_COUNTER = "num_batches_tracked"  # of a batch norm, which jaxmask does not need
_NO_NAMES: Mapping[str, str] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What `load_state_dict` did; `str()` of it is the text.

    Attributes:
      filled: for each parameter that was set, by its path in the model, the names of its arrays.
      unused: names of the mapping that no parameter took.
      unfilled: parameters that kept their values, by their paths, each with the names that were
        looked for.

    Example:
      >>> import numpy as np, jaxmask as jm, flax.nnx as nnx
      >>> weights = {"fc.weight": np.ones((2, 3), np.float32)}
      >>> layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
      >>> print(jm.interop.load_state_dict(layer, weights, names={"": "fc"}, strict=False))
      Filled 1 parameter.
      Not filled:
      - bias (looked for `fc.bias`)
    """

    filled: Mapping[str, tuple[str, ...]]
    unused: tuple[str, ...]
    unfilled: Mapping[str, tuple[str, ...]]

    def __str__(self) -> str:
        count = len(self.filled)
        lines = [f"Filled {count} parameter{'s' if count != 1 else ''}."]
        if self.unfilled:
            lines.append("Not filled:")
        for path, names in self.unfilled.items():
            lines.append(f"- {path} (looked for {' and '.join(f'`{name}`' for name in names)})")
        if self.unused:
            lines.append("Not used:")
        lines += [f"- `{name}`" for name in self.unused]
        return "\n".join(lines)


def load_state_dict(
    model: nnx.Module,
    mapping: Mapping[str, Any],
    *,
    names: Mapping[str, str] = _NO_NAMES,
    strict: bool = True,
) -> Loaded:
    """Fill the parameters of a model with PyTorch's arrays, by name.

    For a model that you wrote again in JAX. Layers of jaxmask, and `nnx.Linear`, `nnx.Embed` and
    Flax's norms, take the names that `torch.nn` gives to their weights, in its layouts:
    `nn.StackedRNN` those of an LSTM, GRU or RNN with several layers, `nn.Bidirectional` and each
    recurrent layer those of one. A parameter of your own takes the array of its own name, as it is.
    Parameters keep their dtype: an `InteropWarning` names those that a narrower one rounds.
    All is checked first: where an error is raised, the model is as it was.

    Args:
      model: an NNX module, with parameters of the shapes that the arrays have.
      mapping: arrays of PyTorch, NumPy or JAX by name, such as `module.state_dict()`, what
        `safetensors.numpy.load_file` returns, or an `.npz` file that was opened.
      names: the prefix in `mapping` for a part of the model, by the part's path, such as
        `{"encoder": "rnn", "layers.3": "classifier"}`; `""` is the model. Unlisted parts use their
        own name under the parent's prefix.
      strict: raise where a name was not used or a parameter not filled.

    Returns:
      A `Loaded`, which lists what was filled, what was not, and which names were not used.

    Raises:
      TypeError: if `mapping` holds no arrays by name, or arrays in half precision, or if a
        parameter is not floating point.
      ValueError: if an array has another shape; if `names` has a path that is not in the model; if
        `strict` and anything is left over.

    Example:
      >>> import numpy as np, jaxmask as jm, flax.nnx as nnx
      >>> weights = {"rnn.weight_ih_l0": np.ones((4, 3)), "rnn.weight_hh_l0": np.ones((4, 4))}
      >>> weights |= {"rnn.bias_ih_l0": np.ones(4), "rnn.bias_hh_l0": np.ones(4)}
      >>> weights = {name: array.astype(np.float32) for name, array in weights.items()}
      >>> model = jm.nn.Sequential(jm.nn.SimpleRNN(3, 4, rngs=nnx.Rngs(0)))
      >>> print(jm.interop.load_state_dict(model, weights, names={"layers.0": "rnn"}))
      Filled 3 parameters.
      >>> model.layers[0].b[...].tolist()
      [2.0, 2.0, 2.0, 2.0]
    """
    if not isinstance(model, nnx.Module):
        raise TypeError(f"{_WHERE}: expected an `nnx.Module`, got {_check.kind_of(model)}.")
    arrays = _arrays(mapping)
    new: list[tuple[nnx.Variable, np.ndarray]] = []
    filled, unfilled = {}, {}
    for path, variable, sources, make in list(_slots(model, names)):
        if any(name not in arrays for name in sources):
            unfilled[path] = sources
            continue
        at = f"{_WHERE}: `{path}` from {' and '.join(f'`{name}`' for name in sources)}"
        new.append((variable, _made(make, [arrays[name] for name in sources], variable, at)))
        filled[path] = sources
    used = {name for sources in filled.values() for name in sources}
    counters = {f"{name.rpartition('.')[0]}.{_COUNTER}".removeprefix(".") for name in used}
    loaded = Loaded(filled, tuple(n for n in arrays if n not in used | counters), unfilled)
    if strict and (loaded.unused or loaded.unfilled):
        raise ValueError(
            f"{_WHERE}: names and parameters do not match, and nothing was loaded. Say in `names` "
            "what the mapping calls each part, or pass `strict=False`.\n"
            f"{str(loaded).replace('Filled', 'Would fill', 1)}"
        )
    rounded = [path for path, (old, array) in zip(filled, new, strict=True) if _rounds(old, array)]
    if rounded:
        warnings.warn(
            f"{_WHERE}: the dtype of these parameters cannot hold all values of the arrays, which "
            f"were rounded: {', '.join(rounded)}. Build the model with the dtype of the arrays, "
            "such as `param_dtype=jnp.float32`, to keep them.",
            InteropWarning,
            stacklevel=2,
        )
    for variable, array in new:
        variable.set_value(jnp.asarray(array.astype(variable[...].dtype, copy=False)))
    return loaded


@np.errstate(over="ignore")
def _rounds(variable: nnx.Variable, array: np.ndarray) -> bool:
    """Whether the dtype of a parameter changes a finite value."""
    kept = array.astype(variable[...].dtype, copy=False).astype(array.dtype, copy=False)
    return bool(np.any(np.isfinite(array) & (kept != array)))


def _arrays(mapping: Any) -> dict[str, np.ndarray]:
    if not isinstance(mapping, Mapping):
        hint = (
            "Load a file first, without running code in it: `torch.load(path, weights_only=True)`"
        )
        if hasattr(mapping, "state_dict"):
            hint = "Pass `module.state_dict()`"
        raise TypeError(
            f"{_WHERE}: expected a mapping of names to arrays, got {_check.kind_of(mapping)}. "
            f"{hint}."
        )
    for name, value in mapping.items():
        if not (isinstance(name, str) and hasattr(value, "shape") and hasattr(value, "dtype")):
            raise TypeError(
                f"{_WHERE}: expected a mapping of names to arrays, got {_check.kind_of(value)} at "
                f"{name!r}. A checkpoint often holds the `state_dict` under a key."
            )
    return {name: weights.as_numpy(value) for name, value in mapping.items()}


def _slots(
    model: nnx.Module, names: Mapping[str, str]
) -> Iterator[tuple[str, nnx.Variable, tuple[str, ...], Make]]:
    """Each parameter: its path, the variable, its array names, and how it is built from them."""
    nodes = {".".join(map(str, path)): node for path, node in nnx.iter_graph(model)}
    parts = {path: node for path, node in nodes.items() if isinstance(node, nnx.Module)}
    left = {
        id(node): (path, node)
        for path, node in nodes.items()
        if isinstance(node, nnx.Param | nnx.BatchStat)
    }
    known = {*parts, *(path for path, _ in left.values())}
    if unknown := [path for path in names if path not in known]:
        raise ValueError(
            f"{_WHERE}: `names` has `{unknown[0]}`, which is not a part of the model. "
            f"Its parts are: {', '.join(sorted(path for path in parts if path))}."
        )
    for path in sorted(parts, key=len):  # a stack before the layers in it
        entries = iter(entries_of(parts[path]) or ())
        for variable, sources, make in inside(_renamed(path, names), entries):
            if id(variable) in left:
                yield left.pop(id(variable))[0], variable, sources, make
    for path, variable in left.values():
        yield path, variable, (_renamed(path, names),), lambda array: array


def _renamed(path: str, names: Mapping[str, str]) -> str:
    """What the mapping calls a part: by the longest path in `names` that it begins with."""
    steps = path.split(".") if path else []
    for count in range(len(steps), -1, -1):
        if (known := ".".join(steps[:count])) in names:
            return ".".join(word for word in (names[known], *steps[count:]) if word)
    return path


def _made(make: Make, arrays: list[np.ndarray], variable: nnx.Variable, at: str) -> np.ndarray:
    try:
        value = make(*arrays)
    except ValueError as error:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(f"{at}: arrays of shape {shapes} do not fit: {error}") from error
    if not jnp.issubdtype(dtype := variable[...].dtype, jnp.floating):
        raise TypeError(f"{at}: the parameter holds {dtype}, and weights are floating point.")
    return weights.checked(value, variable.shape, at)
