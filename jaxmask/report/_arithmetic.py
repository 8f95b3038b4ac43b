"""Operations of a traced program, by the layer that they belong to."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MOVING = frozenset({
    "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "device_put",
    "dynamic_slice", "dynamic_update_slice", "gather", "iota", "optimization_barrier", "pad",
    "reshape", "rev", "scatter", "select_n", "slice", "split", "squeeze", "stop_gradient",
    "transpose",
})  # fmt: skip


@dataclass
class Operations:
    """Multiplications, additions and other operations on one number each.

    Attributes:
      of_layer: by the number of the layer, without those of the layers inside it.
      open_ended: layers with a loop whose turns the data decide, counted as one turn.
    """

    of_layer: Counter[int] = field(default_factory=Counter)
    open_ended: set[int] = field(default_factory=set)


def count(program: Any, marker: str) -> Operations:
    """Count a closed jaxpr; `marker` and a number, in a name scope, open a layer."""
    found = Operations()
    _count(program.jaxpr, 1, 0, re.compile(re.escape(marker) + r"(\d+)"), found)
    return found


def _count(jaxpr: Any, times: int, owner: int, marks: re.Pattern[str], found: Operations) -> None:
    for eqn in jaxpr.eqns:
        layers = marks.findall(str(eqn.source_info.name_stack))
        layer = int(layers[-1]) if layers else owner
        name = eqn.primitive.name
        inside = list(_programs(eqn.params))
        if name == "while":
            found.open_ended.add(layer)
        turns = times * (eqn.params["length"] if name == "scan" else 1)
        if name == "cond":  # one branch runs: the longest stands for it
            inside = [max(inside, key=lambda branch: len(branch.eqns))]
        for program in inside:
            _count(program, turns, layer, marks, found)
        if not inside:
            found.of_layer[layer] += times * _operations(eqn)


def _programs(params: dict[str, Any]) -> Iterator[Any]:
    """What a primitive runs; the derivative of a function is not what it runs."""
    for name, value in params.items():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns") and "jvp" not in name and "fwd" not in name:
                yield part


def _operations(eqn: Any) -> int:
    name, results = eqn.primitive.name, [v.aval for v in eqn.outvars]
    entries = sum(math.prod(getattr(aval, "shape", ())) for aval in results)
    if name in MOVING:
        return 0
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return 2 * entries * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        out_features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2 * entries * math.prod(kernel) // out_features
    if name.startswith(("reduce", "arg", "cum")):
        return math.prod(eqn.invars[0].aval.shape)
    return entries
