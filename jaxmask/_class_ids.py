"""Class ids: which of them are classes, and nan for those that are not."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmask import _check
from jaxmask._types import Array, ArrayLike, Mask, Segments, common_dtype


def real_ids(
    ids: ArrayLike,
    mask: Mask,
    size: int,
    where: str,
    name: str,
    *,
    but: int | None = None,
    but_is: str = "the blank",
    mask_name: str = "mask",
    of: str = "classes",
) -> tuple[Array, Array]:
    """Class ids `(ids, valid)` that are safe to index with, and whether they are classes.

    An id outside `0..size - 1` at a real step is an error where the host can see it. Where it
    cannot, the caller makes the result nan by `valid`: indexing would read a negative id from the
    end.

    `ids` are integer or boolean, `mask` is of their leading axes, and both are as the user passed
    them: `jnp.asarray` under `jit` hides their values. `but` is a class that must not occur;
    `but_is`, what that is, `mask_name` and `of`, what there are `size` of, are for the error. The
    returned ids are at least int32, 0 in padding and where they are not a class; `valid` is True in
    padding.
    """
    real = mask.ids > 0 if isinstance(mask, Segments) else mask
    seen = _check.known(ids)
    seen_real = True if real is None else _check.known(real)
    if real is not None:
        real = _check.unfolded(real, jnp.asarray(real))
    if seen is not None and seen_real is not None:
        _, valid = _classes(np, seen, seen_real, size, but)
        if not valid.all():
            first = np.unravel_index(np.argmin(valid), valid.shape)
            blank = "" if but is None else f" and not be {but}, {but_is},"
            raise ValueError(
                f"{where}: `{name}` must lie in 0..{size - 1}{blank} at real steps, got "
                f"{seen[first]} at {tuple(map(int, first))}. "
                f"{_cure(seen[first], size, name, mask_name, of)}"
            )
    return _classes(jnp, jnp.asarray(ids), True if real is None else real, size, but)


def _cure(seen: Any, size: int, name: str, mask_name: str, of: str) -> str:
    """An id beyond the size may be meant, where the size is wrong."""
    leave = f"take such steps out of the mask: `{mask_name} & ({name} != {seen})`."
    if seen < size:
        return f"If it stands for no class, {leave}"
    return f"There are {size} {of}: if {seen} is an id, it takes {int(seen) + 1}; if not, {leave}"


def checked_frames(
    logits: ArrayLike, mask: Mask, blank_id: int, where: str, *, segments: bool = True
) -> tuple[Array, Mask]:
    """Logits `[batch, time, classes]`, of which the blank is one class, and their mask."""
    logits, mask = _check.pair(
        logits, mask, where, over_time=True, segments=segments, name="logits"
    )
    _check.floating(logits, where, "logits")
    if logits.ndim != 3:
        raise ValueError(f"{where}: `logits` must be [batch, time, classes], got {logits.shape}.")
    # A negative id would select no class at all in optax.
    if _check.count(blank_id, where, "blank_id") >= logits.shape[2]:
        raise ValueError(
            f"{where}: `blank_id` must be one of the {logits.shape[2]} classes, got {blank_id}."
        )
    return logits, mask


def check_labels(labels: ArrayLike, label_mask: Mask, batch: int, where: str) -> None:
    """Labels `[batch, label]`, integer, and their mask; their values are for `real_ids`."""
    labels, _ = _check.pair(
        *(labels, label_mask, where),
        over_time=True,
        segments=False,
        name="labels",
        mask_name="label_mask",
    )
    if labels.ndim != 2 or labels.shape[0] != batch:
        raise ValueError(
            f"{where}: `labels` must be [batch, label] with a batch of {batch}, got shape "
            f"{labels.shape}."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{where}: `labels` must be integer class ids, got dtype {labels.dtype}.")


def nan_unless(valid: Array, y: Array) -> Array:
    """`y`, and nan where it is not valid."""
    seen = _check.known(valid)
    # Where everything is valid, a nan among the operands would only trip `jax_debug_nans`.
    return y if seen is not None and seen.all() else jnp.where(valid, y, jnp.nan)


def _classes(numpy: Any, ids: Any, real: Any, size: int, but: int | None) -> tuple[Any, Any]:
    """`real_ids` by NumPy or by JAX."""
    # Narrow integers cannot be compared with a size that they cannot hold.
    promote = np.promote_types if numpy is np else common_dtype
    ids = ids.astype(promote(ids.dtype, np.int32))
    real = numpy.expand_dims(real, tuple(range(np.ndim(real), ids.ndim)))
    is_class = (ids >= 0) & (ids < size)
    if but is not None:
        is_class &= ids != but
    return numpy.where(is_class & real, ids, 0), is_class | ~real
