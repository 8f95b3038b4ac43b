"""One layer alone: does it mix steps, and do its results depend on what padding holds?"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxmask import _nnx, leak
from jaxmask._lines import is_own
from jaxmask._types import PyTree, Segments
from jaxmask.report._calls import Call, Ref

SEES, PROVED, FINITE = "sees padding", "proved", "proved if finite"
UNDECIDED, UNSEEN, UNTRIED = "undecided", "ignores padding", ""


@dataclass(frozen=True)
class Probe:
    """What a layer does alone; None where it was not tried."""

    mixes: bool | None = None
    verdict: str = UNTRIED
    place: leak.Place | None = None  # the line of the user's own code that lets padding in


class Prober:
    """Probes layers, equal ones once: same class, structure, shapes and mask."""

    def __init__(self, values: dict[int, np.ndarray]):
        self._values = values
        self._known: list[tuple[Any, Probe]] = []

    def probe(self, call: Call, x: Any, marks: np.ndarray) -> Probe:
        """`x`: the argument with the steps that `marks` marks.

        Floating arrays are random, so that no layer before this one need run.
        """
        key = self._key(call, marks)
        for known, probe in self._known:
            if known == key:
                return probe
        try:
            probe = _probe(_Layer(call, self._values), x, marks)
        except Exception as error:  # a layer may need values that only the whole model makes
            probe = Probe(verdict=f"not tried: {type(error).__name__}")
        self._known.append((key, probe))
        return probe

    def _key(self, call: Call, marks: np.ndarray) -> Any:
        shapes = tuple((a.shape, str(a.dtype)) for a in jax.tree.leaves(call.arrays))
        leaves, structure = jax.tree.flatten((call.args, call.kwargs))
        args = tuple(self._leaf_key(leaf) for leaf in leaves)
        return type(call.layer), call.structure, shapes, structure, args, marks.tobytes()

    def _leaf_key(self, leaf: Any) -> Any:
        leaf = self._values.get(leaf.number, leaf) if isinstance(leaf, Ref) else leaf
        if isinstance(leaf, np.ndarray | jax.Array):
            return leaf.shape, str(leaf.dtype), np.asarray(leaf).tobytes()
        if isinstance(leaf, jax.ShapeDtypeStruct | Ref):
            return leaf.shape, str(leaf.dtype)
        return leaf


class _Layer:
    """A layer as a function of all of its array arguments."""

    def __init__(self, call: Call, values: dict[int, np.ndarray]):
        random = np.random.default_rng(0)
        self.structure = call.structure
        self.state = jax.tree.map(lambda a: _stand_in(a, random, values, 0.1), call.arrays)
        self.leaves, self.tree = jax.tree.flatten((call.args, call.kwargs))
        self.given = [_stand_in(leaf, random, values, -1.0) for leaf in self.leaves]

    def position(self, argument: Any) -> int:
        """The place of an argument among the leaves."""
        return next(i for i, leaf in enumerate(self.leaves) if leaf is argument)

    def __call__(self, position: int, value: Any) -> PyTree:
        """The output with one argument replaced."""
        leaves = [*self.given[:position], value, *self.given[position + 1 :]]
        args, kwargs = jax.tree.unflatten(self.tree, leaves)
        return _nnx.attached(self.structure, self.state)(*args, **kwargs)


def _stand_in(
    leaf: Any, random: np.random.Generator, values: dict[int, np.ndarray], low: float
) -> Any:
    if isinstance(leaf, Ref) and leaf.number in values:
        return jnp.asarray(values[leaf.number])
    is_known = not isinstance(leaf, jax.core.Tracer | jax.ShapeDtypeStruct | Ref)
    if is_known or not hasattr(leaf, "dtype"):
        return leaf
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), leaf.shape) if leaf.shape else jax.random.key(0)
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.ones(leaf.shape, leaf.dtype)
    return jnp.asarray(random.uniform(low, 1, leaf.shape), leaf.dtype)


def _probe(layer: _Layer, x: Any, marks: np.ndarray) -> Probe:
    position = layer.position(x)
    start = np.asarray(layer.given[position])
    # Run operation by operation: blocks that a model repeats are compiled once.
    program, shapes = jax.make_jaxpr(lambda value: layer(position, value), return_shape=True)(start)
    tree, operations = jax.tree.structure(shapes), core.jaxpr_as_fun(program)

    def run(value: np.ndarray) -> PyTree:
        return jax.tree.unflatten(tree, operations(value))

    real, halves = marks > 0, _halves(marks > 0)
    base = run(start)
    others = [(_moved(start, half, real), half) for half in halves]
    mixes = any(_differs(base, run(moved), real & ~half, x) for moved, half in others if half.any())
    if real.all():
        return Probe(mixes)
    if _differs(base, run(_moved(start, ~real, real)), real, x):
        return Probe(mixes, SEES, _place(layer, position, start, marks))
    return Probe(mixes, verdict_of(layer, position, start, marks))


def verdict_of(layer: _Layer, position: int, start: np.ndarray, marks: Any) -> str:
    """What `leak.prove` says of the values, for any padding or else for finite padding."""
    for assume, verdict in (("strict", PROVED), ("finite", FINITE)):
        try:
            proof = _proof(layer, position, start, marks, assume)
        except Exception:  # what cannot be asked stays tested
            return UNSEEN
        if proof.verdict == "proved":
            return verdict
    return UNDECIDED


def _place(layer: _Layer, position: int, start: np.ndarray, marks: Any) -> leak.Place | None:
    try:
        causes = _proof(layer, position, start, marks, "strict").blame
    except Exception:  # what cannot be asked has no line
        return None
    # The layers inside are judged by themselves, so rather what comes after them.
    places = [cause.place for cause in causes if cause.of_values]
    return next((place for place in reversed(places) if place and is_own(place.file)), None)


def _proof(layer: _Layer, position: int, start: np.ndarray, marks: Any, assume: str) -> leak.Proof:
    mask = Segments(marks, int(marks.max())) if marks.dtype != bool else marks

    def alone(x: Any, mask: Any) -> Any:
        out = layer(position, jax.lax.stop_gradient(x))
        keeps_time = hasattr(out, "shape") and out.shape[: marks.ndim] == marks.shape
        return (out, jnp.asarray(marks) > 0) if keeps_time else out

    return leak.prove(alone, start, mask, assume=assume, witness=False)


def _halves(real: np.ndarray) -> list[np.ndarray]:
    """The first and the second half of the real steps of each row that has two or more."""
    rank, counts = np.cumsum(real, 1), real.sum(1, keepdims=True)
    several = real & (counts > 1)
    return [several & (rank <= counts // 2), several & (rank > counts // 2)]


def _moved(x: np.ndarray, where: np.ndarray, real: np.ndarray) -> np.ndarray:
    """`x` with other values, from the range of the real ones."""
    spread = where.reshape(where.shape + (1,) * (x.ndim - where.ndim))
    if x.dtype == bool:
        return np.where(spread, ~x, x)
    if np.issubdtype(x.dtype, np.integer):
        low, high = x[real].min(), x[real].max()
        if low == high:
            low = low - 1 if low > 0 else low + 1
        return np.where(spread, np.where(x == high, low, high), x).astype(x.dtype)
    return np.where(spread, np.asarray(0.37, x.dtype) - x, x).astype(x.dtype)


def _differs(one: PyTree, two: PyTree, at: np.ndarray, x: Any) -> bool:
    """Whether floating results differ at these steps; results without time count whole."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        if not jnp.issubdtype(a.dtype, jnp.inexact):
            continue
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape[: at.ndim] == at.shape and (a.ndim > 2 or x.ndim == 2):
            a, b = a[at], b[at]
        if a.size and np.max(np.abs(a - b)) > 1e-5 * max(1e-3, np.max(np.abs(a))):
            return True
    return False
