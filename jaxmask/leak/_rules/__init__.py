"""What each primitive does to what is known: one file a family, which registers its rules."""

from jaxmask.leak._rules import (
    arithmetic,
    calls,
    contraction,
    control,
    cumulative,
    elementwise,
    gathering,
    linear_algebra,
    randomness,
    reductions,
    scattering,
    shapes,
    slicing,
    sorting,
    windows,
)

__all__ = [
    "arithmetic",
    "calls",
    "contraction",
    "control",
    "cumulative",
    "elementwise",
    "gathering",
    "linear_algebra",
    "randomness",
    "reductions",
    "scattering",
    "shapes",
    "slicing",
    "sorting",
    "windows",
]
