"""Flax modules, NNX and Linen, as masked modules. Linen is never imported."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx

from jaxmask import _check
from jaxmask.interop import _weights as weights
from jaxmask.interop._flax_layers import CONTAINERS, PLANNERS, FlaxContext, plan_function
from jaxmask.interop._plan import NO_REPLACEMENTS, Layer, Replacements, convert


def from_flax(
    module: Any,
    variables: Mapping[str, Any] | None = None,
    *,
    causal: bool = False,
    replace: Replacements = NO_REPLACEMENTS,
    rngs: nnx.Rngs | None = None,
) -> Any:
    """Convert a Flax module to a masked module with the same weights, in evaluation mode.

    Each row gives what the source gives for that row alone, without its padding: a mask replaces
    `seq_lengths`. The weights are copies.

    Args:
      module: an NNX module, or a Linen module: recurrent layers and cells, `Bidirectional`,
        attention, norms, `Conv` over time, `Embed`, `Linear` or `Dense`, `Dropout`, and
        `Sequential` of them and of JAX's activations; `explain` says what each layer becomes. A
        module with its own `__call__` is not supported, but its parts are.
      variables: of a Linen module, what its `init` returned.
      causal: self-attention sees no later step. Flax passes that mask when a module is called.
      replace: masked layers to put in the place of some of the model's, by path, such as
        `{"layers.2": jm.nn.Passthrough(f)}`. A module that stands in several places is replaced in
        those that are named.
      rngs: source of the noise of dropout in training; `nnx.Rngs(0)` where None.

    Returns:
      A module `(x, mask=None) -> (y, mask)`.

    Raises:
      TypeError: if `module` is not a Flax module, or a Linen module comes without variables.
      ValueError: if a layer, or an option of one, is not supported; the text names all of them.

    Example:
      >>> import jaxmask as jm, flax.nnx as nnx
      >>> model = nnx.RNN(nnx.LSTMCell(3, 4, rngs=nnx.Rngs(0)))
      >>> y, mask = jm.interop.from_flax(model)(*jm.pad_sequences([[[1.0, 2, 3]], []]))
      >>> y.shape, mask.tolist()
      ((2, 1, 4), [[True], [False]])
    """
    if is_linen(module) and not isinstance(variables, Mapping):
        raise TypeError(
            "from_flax: a Linen module holds no weights: pass its variables too, "
            f"`from_flax(module, module.init(key, x))`, got {_check.kind_of(variables)}."
        )
    if not isinstance(module, nnx.Module) and not is_linen(module):
        raise TypeError(
            f"from_flax: expected a module of Flax, NNX or Linen, got {_check.kind_of(module)}."
        )
    source = module if variables is None else (module, variables)
    rngs = nnx.Rngs(0) if rngs is None else rngs
    return convert(plan(source, replace, causal, rngs), "from_flax", sorted(PLANNERS), replace)


def plan(
    source: Any,
    replace: Replacements = NO_REPLACEMENTS,
    causal: bool = False,
    rngs: nnx.Rngs | None = None,
) -> Layer:
    """What an NNX module becomes, or a pair of a Linen module and its variables."""
    module, variables = source if isinstance(source, tuple) else (source, {})
    planned: dict[int, Layer] = {}

    def each(module: Any, at: Any) -> Layer:
        # A shared module is planned once and stays shared, but where it is replaced.
        if not (isinstance(module, nnx.Module) or is_linen(module)):
            return _plan(module, at)
        if at.path in replace:
            return _plan(module, at)
        if id(module) not in planned:
            planned[id(module)] = _plan(module, at)
        return planned[id(module)]

    held = {name: weights.as_dict(variables.get(name)) for name in ("params", "batch_stats")}
    return each(module, FlaxContext("", "", each, replace, rngs, causal, **held))


def is_linen(module: Any) -> bool:
    return any(
        kind.__module__ == "flax.linen.module" and kind.__name__ == "Module"
        for kind in type(module).__mro__
    )


def _plan(module: Any, at: FlaxContext) -> Layer:
    kind = type(module)
    is_module = isinstance(module, nnx.Module) or is_linen(module)
    library = "nn" if is_linen(module) else "nnx"
    is_of_flax = kind.__module__.startswith(("flax.nnx.", "flax.linen."))
    at = dataclasses.replace(at, source=f"{library}." * is_of_flax + kind.__name__)
    if (mine := at.replaced()) is not None:
        return mine
    if not is_module:
        return plan_function(module, at)
    if not (is_of_flax and kind.__name__ in PLANNERS):
        return at.refused(
            "it is not supported."
            if is_of_flax
            else "what its `__call__` does is unknown. Convert the modules in it, and write its "
            "`__call__` for `(x, mask)`."
        )
    if isinstance(module, nnx.Module):
        at = at.holding(module)
    if kind.__name__ not in CONTAINERS:
        for name, value in weights.flat(at.params).items():
            if unfit := weights.unfit(value):
                return at.refused(f"`{name}` {unfit}")
    try:
        return PLANNERS[kind.__name__](module, at)
    except KeyError as error:
        return at.refused(f"its variables have no {error}: are they those of this model?")
