"""PyTorch modules as masked modules. PyTorch is never imported: a module is known by its class."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, nn
from jaxmask.interop import _weights as weights
from jaxmask.interop._plan import NO_REPLACEMENTS, At, Layer, Replacements, convert
from jaxmask.interop._torch_weights import RULES

_PLANNERS: dict[str, Callable[[Any, At], Layer]] = {}


def planner(*names: str) -> Callable[..., Any]:
    """Register how the modules of `torch.nn` of these names are planned."""

    def register(f: Callable[[Any, At], Layer]) -> Callable[[Any, At], Layer]:
        _PLANNERS.update(dict.fromkeys(names, f))
        return f

    return register


def from_torch(
    module: Any, *, replace: Replacements = NO_REPLACEMENTS, rngs: nnx.Rngs | None = None
) -> Any:
    """Convert a PyTorch module to a masked module with the same weights, in evaluation mode.

    Args:
      module: a `torch.nn.Module`.
      replace: masked layers to put in the place of some of the model's, by path, such as
        `{"encoder.2": jm.nn.Passthrough(f)}`.
      rngs: source of the noise of dropout in training; `nnx.Rngs(0)` where None.

    Returns:
      A module `(x, mask=None) -> (y, mask)`. All arrays are batch first and channels last.

    Raises:
      TypeError: if `module` is no PyTorch module.
      ValueError: if a layer, or an option of one, is not covered; the text names all of them.

    Example:
      >>> import torch, jaxmask as jm
      >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
      >>> y, mask = jm.interop.from_torch(model)(*jm.pad_sequences([[[1.0, 2, 3]], []]))
      >>> y.shape, mask.tolist()
      ((2, 1, 4), [[True], [False]])
    """
    if not _is_module(module):
        raise TypeError(
            f"from_torch: expected a `torch.nn.Module`, got {_check.kind_of(module)}. Weights "
            "alone, a `state_dict`, go into a model with `jm.interop.load_state_dict`."
        )
    return convert(
        plan(module, replace, rngs),
        "from_torch",
        [f"torch.nn.{name}" for name in _PLANNERS],
        replace,
    )


def plan(
    module: Any, replace: Replacements = NO_REPLACEMENTS, rngs: nnx.Rngs | None = None
) -> Layer:
    """What the module becomes."""
    return _plan(module, At("", "", _plan, replace, nnx.Rngs(0) if rngs is None else rngs))


def _plan(module: Any, at: At) -> Layer:
    kind = type(module)
    is_of_torch = kind.__module__.startswith("torch.nn.modules.")
    at = at.of(f"torch.nn.{kind.__name__}" if is_of_torch else kind.__name__)
    if (mine := at.replaced()) is not None:
        return mine
    if not (is_of_torch and kind.__name__ in _PLANNERS):
        return at.refused(_why_unknown(module, is_of_torch))
    if module._forward_hooks or module._forward_pre_hooks:
        return at.refused("it has forward hooks, which would not run.")
    for name, value in module.named_parameters(recurse=False):
        if unfit := weights.unfit(weights.as_numpy(value).dtype):
            return at.refused(f"`{name}` {unfit}")
    return _PLANNERS[kind.__name__](module, at)


def _is_module(module: Any) -> bool:
    return any(
        f"{kind.__module__}.{kind.__name__}" == "torch.nn.modules.module.Module"
        for kind in type(module).__mro__
    )


def _why_unknown(module: Any, is_of_torch: bool) -> str:
    if is_of_torch:
        return "it is not covered."
    return (
        "its class is not of `torch.nn`, so what its `forward` does is unknown. Convert the "
        "modules in it, and write its `forward` as a function of `(x, mask)`."
    )


def filled(layer: Any, module: Any, at: At) -> Any:
    """A new layer with the weights of the module."""
    state = {name: weights.as_numpy(value) for name, value in module.state_dict().items()}
    for variable, array, name in RULES[type(layer)](layer, state.__getitem__):
        weights.put(variable, array, f"from_torch: {at.path} ({at.source}), `{name}`")
    return layer


def zeros(module: Any, at: At) -> dict[str, Any]:
    """Options of a layer whose weights are set afterwards."""
    dtype = weights.as_numpy(next(iter(module.state_dict().values()))).dtype
    return {"param_dtype": dtype, "rngs": nnx.Rngs(0)}


@planner("Sequential")
def _sequential(module: Any, at: At) -> Layer:
    parts = tuple(at.inside(name, inside) for name, inside in module.named_children())
    return at.layer("jm.nn.Sequential", nn.Sequential, parts=parts)


@planner("Linear")
def _linear(module: Any, at: At) -> Layer:
    def make() -> nnx.Linear:
        options: dict[str, Any] = {"use_bias": module.bias is not None}
        layer = nnx.Linear(module.in_features, module.out_features, **options, **zeros(module, at))
        return filled(layer, module, at)

    return at.layer("nnx.Linear", make)


_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "ReLU": jax.nn.relu,
    "Tanh": jnp.tanh,
    "Sigmoid": jax.nn.sigmoid,
    "SiLU": jax.nn.silu,
    "Identity": jax.nn.identity,
}


@planner(*_ACTIVATIONS)
def _activation(module: Any, at: At) -> Layer:
    f = _ACTIVATIONS[type(module).__name__]
    return at.layer(f.__name__, lambda: f)
