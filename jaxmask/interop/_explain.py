"""What a conversion would do, without doing it."""

from collections.abc import Callable
from typing import Any

from jaxmask import _check
from jaxmask.interop import _flax, _keras, _torch
from jaxmask.interop._plan import NO_REPLACEMENTS, Plan, Replacements, plan_of

# Keyed by the top-level package of a class in the source's MRO.
_PLANNERS: dict[str, Callable[..., Any]] = {
    "flax": _flax.plan,
    "keras": _keras.plan,
    "torch": _torch.plan,
}


def explain(source: Any, *, replace: Replacements = NO_REPLACEMENTS) -> Plan:
    """Say what each layer of a model would become, and where values would differ and why.

    Args:
      source: a model of PyTorch, Flax or Keras; a pair `(module, variables)` for Linen.
      replace: as for those.

    Returns:
      A `Plan`; `print` it for a table. Unsupported layers are listed in it, not errors.

    Raises:
      TypeError: if `source` is not a model of these libraries.

    Example:
      >>> import jaxmask as jm, flax.nnx as nnx
      >>> print(jm.interop.explain(nnx.Linear(3, 4, rngs=nnx.Rngs(0))))
      layer  class       becomes
      .      nnx.Linear  nnx.Linear
    """
    module = source[0] if isinstance(source, tuple) and source else source
    for kind in type(module).__mro__:
        library = kind.__module__.partition(".")[0]
        if library in _PLANNERS:
            return plan_of(_PLANNERS[library](source, replace))
    raise TypeError(
        f"explain: expected a model of {', '.join(_PLANNERS)}, got {_check.kind_of(source)}."
    )
