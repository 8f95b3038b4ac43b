"""The widths that padding and cropping take."""

from collections.abc import Sequence

from jaxmask import _check


def width_of(width: tuple[int, int], where: str) -> tuple[int, int]:
    """The static `(left, right)` of a width."""
    if not isinstance(width, Sequence) or len(width) != 2:
        raise TypeError(f"{where}: `width` must be a pair of ints (left, right), got {width!r}.")
    return _check.count(width[0], where, "left"), _check.count(width[1], where, "right")
