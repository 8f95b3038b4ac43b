"""PyTorch modules as masked modules. PyTorch is never imported; classes are matched by name."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from flax import nnx

from jaxmask import _check
from jaxmask.interop import _weights as weights
from jaxmask.interop._plan import NO_REPLACEMENTS, Layer, LayerContext, Replacements, convert
from jaxmask.interop._torch_layers import PLANNERS


def from_torch(
    module: Any,
    *,
    causal: bool = False,
    replace: Replacements = NO_REPLACEMENTS,
    rngs: nnx.Rngs | None = None,
) -> Any:
    """Convert a PyTorch module to a masked module with the same weights, in evaluation mode.

    Each row gives what the source gives for that row alone, without its padding. Arrays are batch
    first and features last here, whatever `batch_first` says and where PyTorch has channels first.
    A recurrent layer returns its outputs; `module.run(module.initial_carry(batch), x, mask)`
    returns the states as well.

    Args:
      module: a `torch.nn.Module`: recurrent layers, `Embedding`, `Linear`, norms, `Conv1d`,
        attention, transformer encoders, `Dropout`, activations, and `Sequential` of them;
        `explain` says what each layer becomes. A module with its own `forward` is not supported,
        but its parts are, and `load_state_dict` fills a model that you wrote again.
      causal: self-attention sees no later step. PyTorch passes that mask when a module is called.
      replace: masked layers to put in the place of some of the model's, by path, such as
        `{"encoder.2": jm.nn.Passthrough(f)}`.
      rngs: source of the noise of dropout in training; `nnx.Rngs(0)` where None.

    Returns:
      A module `(x, mask=None) -> (y, mask)`.

    Raises:
      TypeError: if `module` is not a PyTorch module.
      ValueError: if a layer, or an option of one, is not supported, or is in half precision; the
        text names all of them.

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
            "alone, a `state_dict`, are loaded into a model with `jm.interop.load_state_dict`."
        )
    rngs = nnx.Rngs(0) if rngs is None else rngs
    return convert(plan(module, replace, causal, rngs), "from_torch", supported(), replace)


def supported() -> list[str]:
    """The supported modules, for error texts."""
    return [f"torch.nn.{name}" for name in sorted(PLANNERS)]


def plan(
    module: Any,
    replace: Replacements = NO_REPLACEMENTS,
    causal: bool = False,
    rngs: nnx.Rngs | None = None,
) -> Layer:
    planned: dict[int, Layer] = {}

    def each(module: Any, at: LayerContext) -> Layer:
        # A shared module is planned once and stays shared, but where it is replaced.
        if at.path in replace:
            return _plan(module, at)
        if id(module) not in planned:
            planned[id(module)] = _plan(module, at)
        return planned[id(module)]

    root = each(module, LayerContext("", "", each, replace, rngs, causal))
    about = {"notes": (*root.notes, *_frozen(module)), "differs": (*root.differs, *_tied(module))}
    return dataclasses.replace(root, **about)  # type: ignore[arg-type]


def _plan(module: Any, at: LayerContext) -> Layer:
    kind = type(module)
    is_of_torch = kind.__module__.startswith("torch.nn.modules.")
    at = at.of(f"torch.nn.{kind.__name__}" if is_of_torch else kind.__name__)
    if (mine := at.replaced()) is not None:
        return mine
    if not _is_module(module):
        return at.refused("it is not a `torch.nn.Module`.")
    if not (is_of_torch and kind.__name__ in PLANNERS):
        return at.refused(_why_unknown(is_of_torch))
    if module._forward_hooks or module._forward_pre_hooks:
        return at.refused("it has forward hooks, which would not run.")
    for name, value in module.named_parameters(recurse=False):
        if unfit := weights.unfit(value):
            return at.refused(f"`{name}` {unfit}")
    return PLANNERS[kind.__name__](module, at)


def _is_module(module: Any) -> bool:
    return any(
        f"{kind.__module__}.{kind.__name__}" == "torch.nn.modules.module.Module"
        for kind in type(module).__mro__
    )


def _why_unknown(is_of_torch: bool) -> str:
    if is_of_torch:
        return "it is not supported."
    return (
        "its class is not of `torch.nn`, so what its `forward` does is unknown. Convert the "
        "modules in it, and write its `forward` for `(x, mask)`; or fill a model that you wrote "
        "again with `jm.interop.load_state_dict`."
    )


def _tied(module: Any) -> Iterator[str]:
    """Parameters with two names, except those of a shared module."""
    names: dict[int, list[str]] = {}
    for path, inside in module.named_modules():
        for name, value in inside.named_parameters(prefix=path, recurse=False):
            names.setdefault(id(value), []).append(name)
    for tied in names.values():
        if len(tied) > 1:
            listed = " and ".join(f"`{name}`" for name in tied)
            yield (
                f"{listed} are tied in the source and separate parameters here, which training "
                "changes independently."
            )


def _frozen(module: Any) -> Iterator[str]:
    frozen = [name for name, value in module.named_parameters() if not value.requires_grad]
    if frozen:
        yield (
            f"{len(frozen)} parameters (`{frozen[0]}`, ...) are frozen in the source and trainable "
            "here: leave them out of the `wrt` of the optimizer."
        )
