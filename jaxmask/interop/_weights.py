"""Arrays of other libraries put into parameters, with every check before."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

HALF = ("float16", "bfloat16")


def as_numpy(value: Any) -> np.ndarray:
    """An array of NumPy, JAX, PyTorch or Keras; PyTorch is known by what its tensors can do."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # which NumPy does not have
            return value.float().numpy().astype(jnp.bfloat16)
        value = value.numpy()
    return np.asarray(value)


def as_torch(array: Any) -> Any:
    """A tensor of PyTorch on the host, a copy."""
    import torch

    array = np.array(array)
    if array.dtype == jnp.bfloat16:  # which PyTorch does not read
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    return torch.from_numpy(array)


def checked(value: Any, shape: tuple[int, ...], at: str) -> np.ndarray:
    """An array of this shape in a precision that parameters keep; `at` names layer and weight."""
    array = as_numpy(value)
    if array.shape != shape:
        raise ValueError(f"{at}: expected an array of shape {shape}, got {array.shape}.")
    if why := unfit(array):
        raise TypeError(f"{at} {why}")
    return array


def unfit(value: Any) -> str:
    """Why weights of a dtype are not taken; empty for float32, and float64 where JAX has it."""
    dtype = as_numpy(value).dtype
    if dtype in HALF:
        return (
            f"holds {dtype}, whose sums the two libraries round differently. Convert it in "
            "float32 (`model.float()` in PyTorch), then pass inputs in half precision."
        )
    if dtype == np.float64 != jax.dtypes.canonicalize_dtype(dtype):
        return (
            "holds float64, which JAX would round. Turn it on, "
            '`jax.config.update("jax_enable_x64", True)`, or convert the model in float32.'
        )
    if dtype not in (np.float32, np.float64):
        return f"holds {dtype}, and parameters are floating point."
    return ""


def put(variable: nnx.Variable, value: Any, at: str) -> None:
    """Set a parameter to an array of its shape, in the precision of the array."""
    variable.set_value(jnp.asarray(checked(value, variable.shape, at)))


def as_dict(value: Any) -> dict[str, Any]:
    """A tree of Linen's variables as plain dictionaries of arrays, without boxes of metadata."""
    if value is None:
        return {}
    unbox = {name: getattr(part, "value", part) for name, part in value.items()}
    return {n: as_dict(part) if isinstance(part, Mapping) else part for n, part in unbox.items()}


def flat(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """Arrays of a tree by their names, joined by dots."""
    found: dict[str, Any] = {}
    for name, part in tree.items():
        if isinstance(part, Mapping):
            found |= {f"{name}.{inside}": array for inside, array in flat(part).items()}
        else:
            found[str(name)] = part
    return found
