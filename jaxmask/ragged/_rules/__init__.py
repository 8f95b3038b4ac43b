"""How each primitive runs on a padded row: one file per family, which registers its rules."""

from jaxmask.ragged._rules import (
    calls,
    contraction,
    control,
    cumulative,
    elementwise,
    extremes,
    gathering,
    joining,
    linear_algebra,
    randomness,
    reductions,
    refused,
    shapes,
    slicing,
    sorting,
    windows,
)

__all__ = [
    "calls",
    "contraction",
    "control",
    "cumulative",
    "elementwise",
    "extremes",
    "gathering",
    "joining",
    "linear_algebra",
    "randomness",
    "reductions",
    "refused",
    "shapes",
    "slicing",
    "sorting",
    "windows",
]
