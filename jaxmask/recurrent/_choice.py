"""Which method runs a recurrence, and why."""

import math
from typing import Any, NamedTuple

import jax

from jaxmask import _check
from jaxmask._types import Mask, Segments, Steps
from jaxmask.recurrent._engine.schedule import Tiles

METHODS = ("auto", "scan", "tiled", "dense", "pallas")

# From `bench/results/calibration.json`; `python -m bench calibrate` measures them again, and
# `python -m bench unroll` the last one.
LEAST_HIDDEN, LEAST_HIDDEN_FULL = 16, 64
LEAST_TIME = 32
FEW = 16  # rows
SHARES, LEAST_SLOTS = (1 / 8, 3 / 8, 1), 4  # slots, as shares of the rows
EVEN = 32  # rows; XLA:CPU multiplies a few more than so many, say 48, at two thirds of the rate
STEPS, STEPS_FEW, STEPS_ONE = 4, 8, 16  # of a chunk: of many rows, of few, of one alone
UNROLL = 8  # steps that a turn of the dense way writes out where a turn must be launched


class Choice(NamedTuple):
    """A method, the sizes that it cuts with unless it is the scan, and the reason.

    Example:
      >>> import jaxmask as jm
      >>> jm.recurrent.explain(64, 256, 256).method
      'tiled'
    """

    method: str
    tiles: Tiles | None
    reason: str


def choose(
    method: str,
    x: Steps | jax.ShapeDtypeStruct,
    hidden: int,
    *,
    reset_after: bool = True,
    full: bool = False,
    where: str,
) -> Choice:
    """Choose the method that runs, by the first of these rules that holds.

    1. What the caller asked for; but only the scan can have a symbolic dimension or a GRU that
       resets before the product, and an empty array is left to it.
    2. The scan where a dimension is symbolic, so that a program exports for any size.
    3. The scan for a GRU that resets before the product: a step has two products in a row.
    4. `"dense"` on a GPU, where a turn of a loop must be launched: it takes `UNROLL` steps a turn.
    5. The scan under a mesh outside `shard_map`: any row may come to any slot, so all would be
       gathered.
    6. The scan on anything but a CPU, where nothing else was measured.
    7. The scan for states of less than `LEAST_HIDDEN` features, and for an empty array.
    8. `"dense"` where there is next to nothing to skip: for up to `FEW` rows, and where there is
       no mask or rows are packed, with `LEAST_HIDDEN_FULL` features or more, else the scan.
    9. The scan for rows of less than `LEAST_TIME` steps.
    10. `"tiled"`.

    Raises:
      ValueError: where `method` is not known, or cannot be had.

    Example:
      >>> x = jax.ShapeDtypeStruct((64, 256, 3), "float32")
      >>> choose("auto", x, 256, where="lstm")[:2]
      ('tiled', Tiles(slots=(8, 24, 64), steps=4, unroll=1))
      >>> choose("auto", x, 8, where="lstm").reason
      'states of less than 16 features are faster in a scan'
    """
    _check.choice(method, METHODS, where, "method")
    batch, time = x.shape[:2]
    cannot = _cannot(batch, time, reset_after)
    if cannot is not None and method not in ("auto", "scan"):
        raise ValueError(f'{where}: `method="{method}"` cannot run: {cannot}. Pass "auto".')
    if cannot is None and x.size == 0:
        return Choice("scan", None, "there is nothing to run")
    if method == "auto":
        method, reason = _best(x, hidden, full, cannot)
    else:
        reason = "asked for"
    cut = {"tiled": tiles_for, "dense": one_tile, "pallas": one_tile}
    return Choice(method, cut[method](batch, time) if method in cut else None, reason)


def is_full(mask: Mask, segments: Any) -> bool:
    """Whether all steps are real, or nearly all, as in packed rows.

    Example:
      >>> is_full(None, None), is_full(jax.numpy.ones((2, 3), bool), None)
      (True, False)
    """
    return mask is None or segments is not None or isinstance(mask, Segments)


def explain(
    batch: Any,
    time: Any,
    hidden: int,
    *,
    cell: str = "lstm",
    reset_after: bool = True,
    full: bool = False,
) -> Choice:
    """Say which method `method="auto"` takes here and now, and why.

    Every method serves any mask, and what a mask looks like costs nothing: each real step is read
    where it stands.

    Args:
      batch: number of rows.
      time: number of steps, padding included.
      hidden: number of hidden features.
      cell: `"lstm"`, `"gru"` or `"simple"`.
      reset_after: of the GRU, see `jaxmask.recurrent.gru`.
      full: there is no mask, or rows are packed.

    Returns:
      `(method, tiles, reason)`; `tiles` is None for the scan, else the numbers of rows to step at
      once, of which the lengths choose one when the program runs, and the steps of a chunk.

    Raises:
      ValueError: if `cell` is unknown.

    Example:
      >>> import jaxmask as jm
      >>> jm.recurrent.explain(64, 256, 256, cell="gru", reset_after=False).reason
      'a GRU that resets before the product has two products in a row'
    """
    _check.choice(cell, ("lstm", "gru", "simple"), "explain", "cell")
    x = jax.ShapeDtypeStruct((batch, time, 1), "float32")
    return choose("auto", x, hidden, reset_after=reset_after, full=full, where="explain")


def tiles_for(batch: int, time: int) -> Tiles:
    """Few slots leave less idle while the longest row ends, many take more rows with each product.

    Which of the numbers is best depends on the lengths, and the engine chooses when it runs. The
    whole batch is stepped at once where there is an accelerator, and where there are few rows.

    Args:
      batch: number of rows.
      time: number of steps.

    Example:
      >>> [tiles_for(batch, 96)[:2] for batch in (128, 1)]
      [((16, 32, 128), 4), ((1,), 16)]
    """
    if jax.default_backend() != "cpu" or batch <= FEW:
        return one_tile(batch, time)
    slots = {_slots(share, batch) for share in SHARES}
    return Tiles(tuple(sorted(slots)), min(STEPS, time))


def _slots(share: float, batch: int) -> int:
    slots = max(LEAST_SLOTS, math.ceil(share * batch))
    return min(batch, slots // EVEN * EVEN if slots > EVEN and share < 1 else slots)


def one_tile(batch: int, time: int) -> Tiles:
    """All rows step together; several steps are one turn of a loop that must be launched.

    Example:
      >>> one_tile(batch=64, time=5)
      Tiles(slots=(64,), steps=4, unroll=1)
    """
    steps = STEPS_ONE if batch == 1 else STEPS_FEW if batch <= FEW else STEPS
    unroll = 1 if jax.default_backend() == "cpu" else UNROLL
    return Tiles((batch,), min(steps, time), min(unroll, time))


def _cannot(batch: Any, time: Any, reset_after: bool) -> str | None:
    if not reset_after:
        return "a GRU that resets before the product has two products in a row"
    if not (isinstance(batch, int) and isinstance(time, int)):
        return "a dimension is symbolic, and its tiles are counted when traced"
    return None


def _best(
    x: Steps | jax.ShapeDtypeStruct, hidden: int, full: bool, cannot: str | None
) -> tuple[str, str]:
    """The method that `"auto"` takes, and the reason."""
    backend = jax.default_backend()
    if cannot is not None:
        return "scan", cannot
    if backend == "gpu":
        return "dense", "a GPU waits for each turn of a loop, and several steps are one turn"
    mesh = jax.sharding.get_abstract_mesh()
    spread = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) and x.devices()
    if set(mesh.axis_names) - set(mesh.manual_axes) or (spread and len(spread) > 1):
        return "scan", "rows under a mesh outside `shard_map` would all be gathered"
    if backend != "cpu":
        return "scan", "nothing else was measured on this kind of device"
    if hidden < LEAST_HIDDEN:
        return "scan", f"states of less than {LEAST_HIDDEN} features are faster in a scan"
    if x.shape[0] <= FEW:
        return "dense", f"up to {FEW} rows step together"
    if full and hidden < LEAST_HIDDEN_FULL:
        return (
            "scan",
            f"without padding, less than {LEAST_HIDDEN_FULL} features are faster in a scan",
        )
    if full:
        return "dense", "there is no padding to skip"
    if x.shape[1] < LEAST_TIME:
        return "scan", f"rows of less than {LEAST_TIME} steps are faster in a scan"
    return "tiled", "only real steps cost time"
