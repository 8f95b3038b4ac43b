"""Which method runs a recurrence, and why."""

from typing import Any, NamedTuple

import jax

from jaxmask import _check
from jaxmask._types import Steps
from jaxmask.recurrent.tiled.schedule import Tiles

METHODS = ("auto", "scan", "tiled")

# From `bench/results/calibration.json`; `python -m bench calibrate` measures them again.
LEAST_HIDDEN, LEAST_HIDDEN_DENSE = 32, 64
LEAST_TIME = 32
SLOTS, SLOTS_DENSE = 16, 32


class Choice(NamedTuple):
    """A method, the tiles it cuts where it is `"tiled"`, and the reason.

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
    dense: bool = False,
    where: str,
) -> Choice:
    """Choose the method that runs, by the first of these rules that holds.

    1. What the caller asked for; `"tiled"` cannot have a symbolic dimension, nor a GRU that resets
       before the product, and leaves an empty array to the scan.
    2. The scan where a dimension is symbolic, so that a program exports for any size.
    3. The scan for a GRU that resets before the product: a step has two products in a row.
    4. The scan under a mesh outside `shard_map`: any row may come to any slot, so all would be
       gathered.
    5. The scan on anything but a CPU, where the engine was not measured.
    6. The scan for states of less than `LEAST_HIDDEN` features, or of `LEAST_HIDDEN_DENSE` where
       there is no mask, for rows of less than `LEAST_TIME` steps, and for an empty array.
    7. The engine.

    Raises:
      ValueError: where `method` is not known, or `"tiled"` cannot be had.

    Example:
      >>> x = jax.ShapeDtypeStruct((64, 256, 3), "float32")
      >>> choose("auto", x, 256, where="lstm")[:2]
      ('tiled', Tiles(rows=16, steps=8, lanes=1))
      >>> choose("auto", x, 8, where="lstm").reason
      'states of less than 32 features are faster in a scan'
    """
    _check.choice(method, METHODS, where, "method")
    batch, time = x.shape[:2]
    why_not = _why_not_tiled(batch, time, reset_after)
    if method == "tiled" and why_not is not None:
        raise ValueError(f'{where}: `method="tiled"` cannot run: {why_not}. Pass "auto".')
    if why_not is None and x.size == 0:
        return Choice("scan", None, "there is nothing to run")
    if method == "scan":
        return Choice("scan", None, "asked for")
    if method == "auto":
        why_not = why_not or _why_slower(x, hidden, dense)
    if why_not is not None:
        return Choice("scan", None, why_not)
    reason = "asked for" if method == "tiled" else "only real steps cost time"
    return Choice("tiled", tiles_for(batch, time, dense=dense), reason)


def explain(
    batch: Any, time: Any, hidden: int, *, cell: str = "lstm", reset_after: bool = True
) -> Choice:
    """Say which method `method="auto"` takes here and now, and why.

    Any mask is served by either method, and costs the same: the engine reads each real step where
    it stands.

    Args:
      batch: number of rows.
      time: number of steps, padding included.
      hidden: number of hidden features.
      cell: `"lstm"`, `"gru"` or `"simple"`.
      reset_after: of the GRU, see `jaxmask.recurrent.gru`.

    Returns:
      `(method, tiles, reason)`; `tiles` is None for the scan, else how many rows are stepped at
      once, the steps of a chunk, and how many such lanes there are.

    Raises:
      ValueError: if `cell` is unknown.

    Example:
      >>> import jaxmask as jm
      >>> jm.recurrent.explain(64, 256, 256, cell="gru", reset_after=False).reason
      'a GRU that resets before the product has two products in a row'
    """
    _check.choice(cell, ("lstm", "gru", "simple"), "explain", "cell")
    x = jax.ShapeDtypeStruct((batch, time, 1), "float32")
    return choose("auto", x, hidden, reset_after=reset_after, where="explain")


def tiles_for(batch: int, time: int, *, dense: bool = False) -> Tiles:
    """Many slots multiply faster, few leave less idle while the longest row ends.

    The whole batch is stepped at once where there is an accelerator.

    Args:
      batch: number of rows.
      time: number of steps.
      dense: every step is known to be real.

    Example:
      >>> tiles_for(batch=32, time=96), tiles_for(batch=1, time=5)
      (Tiles(rows=16, steps=8, lanes=1), Tiles(rows=1, steps=5, lanes=1))
    """
    slots = SLOTS_DENSE if dense else SLOTS
    slots = slots if jax.default_backend() == "cpu" else batch
    return Tiles(min(slots, batch), min(8, time), lanes=1)


def _why_not_tiled(batch: Any, time: Any, reset_after: bool) -> str | None:
    if not (isinstance(batch, int) and isinstance(time, int)):
        return "a dimension is symbolic, and its tiles are counted when traced"
    if not reset_after:
        return "a GRU that resets before the product has two products in a row"
    return None


def _why_slower(x: Steps | jax.ShapeDtypeStruct, hidden: int, dense: bool) -> str | None:
    mesh = jax.sharding.get_abstract_mesh()
    spread = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) and x.devices()
    if set(mesh.axis_names) - set(mesh.manual_axes) or (spread and len(spread) > 1):
        return "rows under a mesh outside `shard_map` would all be gathered"
    if jax.default_backend() != "cpu":
        return "the engine was not measured on this kind of device"
    if hidden < LEAST_HIDDEN:
        return f"states of less than {LEAST_HIDDEN} features are faster in a scan"
    if x.shape[1] < LEAST_TIME:
        return f"rows of less than {LEAST_TIME} steps are faster in a scan"
    if dense and hidden < LEAST_HIDDEN_DENSE:
        return f"without padding, states of less than {LEAST_HIDDEN_DENSE} features are, too"
    return None
