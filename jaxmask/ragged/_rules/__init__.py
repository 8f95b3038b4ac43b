"""How each primitive runs on a padded row: one file per family, which registers its rules."""

from jaxmask.ragged._rules import (  # noqa: F401
    calls,
    control,
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
