"""Contents of the padding.

Copies of real steps are the harmless baseline: what is safe on real steps is safe on them. The rest
is meant to reveal leaks: values that spread (nan, inf), that dominate (huge), that look real
(noise, values of all scales, real values and steps), and that code often uses as sentinels (0, 1,
-1, -100, the lowest integer).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from jaxmask.leak._outputs import is_inexact

Recipe: TypeAlias = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Padding:
    """One content of the padding.

    Attributes:
      name: for the text of a report.
      moderate: finite and of unit scale, so that gradients there must be exactly 0.
      x: the leaves of `x` with their padding replaced.
    """

    name: str
    moderate: bool
    x: list[np.ndarray]


def copies(x: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Fill the padding with a finite real step of the same row, or of another if it has none."""
    if not x.size:
        return x
    batch = real.shape[0]
    steps = x.reshape(batch, -1, *x.shape[real.ndim :])
    safe = real.reshape(batch, -1)
    if is_inexact(x):
        safe = safe & np.isfinite(steps).reshape(*safe.shape, -1).all(axis=2)
    if not safe.any():
        constant = np.asarray(is_inexact(x)).astype(x.dtype)  # 0 is a valid id in any table
        return np.where(_expand(real, x.ndim), x, constant)
    first = np.where(safe.any(axis=1), np.arange(batch), np.argmax(safe.any(axis=1)))
    donors = steps[first, np.argmax(safe[first], axis=1)]
    donors = donors[:, None] if real.ndim == 2 else donors
    return np.where(_expand(real, x.ndim), x, donors)


def paddings(x: list[np.ndarray], real: np.ndarray, *, as_given: bool) -> Iterator[Padding]:
    """Every content, one dtype kind at a time; with `as_given`, first the given padding."""
    if as_given:
        moderate = all(_is_moderate(leaf[~real]) for leaf in x)
        yield Padding("the padding as given", moderate, x)
    kinds = {_kind(leaf): None for leaf in x}
    for kind in kinds:
        for name, (moderate, recipe) in RECIPES[kind].items():
            rng = np.random.default_rng(0)
            # Leaves of other kinds hold real values.
            contents = [(recipe if _kind(a) == kind else _real_values)(a, real, rng) for a in x]
            filled = [
                np.where(_expand(real, a.ndim), a, content.astype(a.dtype))
                for a, content in zip(x, contents, strict=True)
            ]
            yield Padding(f"{name} in the padding", moderate, filled)


def is_constant(x: np.ndarray, real: np.ndarray) -> bool:
    """Whether all real steps are equal."""
    steps = x[real]
    return bool((steps == steps[:1]).all())


def plausible(x: list[np.ndarray], real: np.ndarray) -> Padding:
    """Values of real steps only, as another sequence of a packed row may hold."""
    rng = np.random.default_rng(0)
    filled = [np.where(_expand(real, a.ndim), a, _real_values(a, real, rng)) for a in x]
    return Padding("values of other steps", True, filled)


def _expand(mask: np.ndarray, ndim: int) -> np.ndarray:
    return mask.reshape(mask.shape + (1,) * (ndim - mask.ndim))


def _kind(x: np.ndarray) -> str:
    if x.dtype == np.bool_:
        return "bool"
    return "inexact" if is_inexact(x) else "integer"


def _is_moderate(values: np.ndarray) -> bool:
    return not is_inexact(values) or bool(np.all(np.abs(values) <= 10))  # nan is not


def _constant(value: float | Callable[[np.dtype], Any]) -> Recipe:
    def recipe(x: np.ndarray, real: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.full(x.shape, value(x.dtype) if callable(value) else value, x.dtype)

    return recipe


def _noise(x: np.ndarray, real: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=x.shape)


def _real_values(x: np.ndarray, real: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    values = x[real].ravel()
    values = values[np.isfinite(values)] if is_inexact(x) else values
    return rng.choice(values, size=x.shape) if values.size else np.zeros(x.shape, x.dtype)


def _real_steps(x: np.ndarray, real: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whole steps of any row."""
    steps = x[real]
    if is_inexact(x):
        steps = steps[np.isfinite(steps).all(axis=tuple(range(1, steps.ndim)))]
    if not len(steps):
        return np.zeros(x.shape, x.dtype)
    return steps[rng.integers(len(steps), size=real.shape)]


def _last_step(x: np.ndarray, real: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Copies of the last real step of the row; `copies` takes the first."""
    axis = real.ndim - 1
    return np.flip(copies(np.flip(x, axis), np.flip(real, axis)), axis)


def _in_range(x: np.ndarray, real: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Integers between the least and the greatest real one."""
    if not real.any() or not x.size:
        return np.zeros(x.shape, x.dtype)
    return rng.integers(x[real].min(), x[real].max(), size=x.shape, dtype=x.dtype, endpoint=True)


def _all_scales(x: np.ndarray, real: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From 1e-4 to 1e4, of either sign."""
    return rng.choice([-1.0, 1.0], size=x.shape) * 10 ** rng.uniform(-4, 4, size=x.shape)


def _huge(x: np.ndarray, real: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About 1e30 in float32, of either sign; its square overflows in every dtype."""
    size = float(jnp.finfo(x.dtype).max) ** 0.8
    return size * rng.choice([-1.0, 1.0], size=x.shape)


REAL: dict[str, tuple[bool, Recipe]] = {
    "real values": (True, _real_values),
    "real steps": (True, _real_steps),
    "the last real step": (True, _last_step),
}
RECIPES: dict[str, dict[str, tuple[bool, Recipe]]] = {
    "inexact": {
        "zeros": (True, _constant(0)),
        "ones": (True, _constant(1)),
        "minus ones": (True, _constant(-1)),
        "noise": (True, _noise),
        "values of all scales": (False, _all_scales),
        **REAL,
        "nan": (False, _constant(np.nan)),
        "inf": (False, _constant(np.inf)),
        "-inf": (False, _constant(-np.inf)),
        "huge": (False, _huge),
    },
    "integer": {
        "0": (True, _constant(0)),
        "-1": (False, _constant(lambda dtype: np.array(-1).astype(dtype))),
        "-100": (False, _constant(lambda dtype: np.array(-100).astype(dtype))),
        "integers in the range of the real ones": (True, _in_range),
        **REAL,
        "the lowest integer": (False, _constant(lambda dtype: jnp.iinfo(dtype).min)),
        "the highest integer": (False, _constant(lambda dtype: jnp.iinfo(dtype).max)),
    },
    "bool": {
        "False": (True, _constant(False)),
        "True": (True, _constant(True)),
        **REAL,
    },
}
