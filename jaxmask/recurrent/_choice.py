"""Which method runs a recurrence, with which sizes, and why."""

import dataclasses
import math
from typing import Any

import jax

from jaxmask import _check
from jaxmask._meshes import over_explicit, spreads_rows
from jaxmask._types import Mask, Segments, Steps

# From `bench/results/calibrate.json`; `python -m bench calibrate` measures them again, and
# `python -m bench unroll` the last one.
LEAST_HIDDEN, LEAST_HIDDEN_FULL = 16, 64
LEAST_TIME = 32
FEW = 16  # rows
SHARES, LEAST_SLOTS = (1 / 8, 3 / 8, 1), 4  # slots as fractions of the rows; at least this many
EVEN = 32  # rows; XLA:CPU multiplies a few more, say 48, at two thirds of the rate
STEPS, STEPS_FEW, STEPS_ONE = 4, 8, 16  # of a chunk: for many rows, for few, for one
KERNEL_ROWS, KERNEL_STEPS = 128, 8
UNROLL = 8  # steps per loop iteration where launching a kernel dominates its time

CELLS = ("lstm", "gru", "simple")  # that `explain` knows


@dataclasses.dataclass(frozen=True)
class Choice:
    """A method and its sizes: what `method=` takes besides a name, and what `explain` returns.

    Sizes left at `()` or 0 are chosen as for the method's name alone, and a method ignores those
    that it does not use. Choices that differ only in `reason` are equal: they share what is
    compiled.

    Attributes:
      method: `"auto"`, `"scan"`, `"tiled"`, `"dense"` or `"pallas"`, see `jaxmask.recurrent.lstm`.
      slots: numbers of rows to step at once. `"tiled"` chooses one of them by the lengths, when the
        program runs; `"pallas"` keeps at most the largest on the chip. Numbers above the number of
        rows count as that number.
      steps: time steps of a chunk, of `"tiled"` and `"pallas"`.
      unroll: time steps per loop iteration, of `"dense"` and of the backward of `"pallas"`.
      reason: why this method was chosen.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.recurrent.explain(64, 256, 256).slots
      (8, 24, 64)
      >>> weights = jm.recurrent.SimpleWeights(jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.zeros(1))
      >>> choice = jm.recurrent.Choice("tiled", slots=(1, 2), steps=2)
      >>> _, (y, _) = jm.recurrent.simple(
      ...     jnp.ones((2, 3, 1)), None, weights, activation="relu", method=choice
      ... )
      >>> y[0, :, 0].tolist()
      [1.0, 2.0, 3.0]
    """

    method: str
    slots: tuple[int, ...] = ()
    steps: int = 0
    unroll: int = 0
    reason: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        _check.choice(self.method, _check.METHODS, "Choice", "method")
        object.__setattr__(self, "slots", tuple(self.slots))  # it has to be hashable
        for slots in self.slots:
            _check.count(slots, "Choice", "slots", least=1)
        _check.count(self.steps, "Choice", "steps")
        _check.count(self.unroll, "Choice", "unroll")


def choose(
    method: str | Choice,
    x: Steps | jax.ShapeDtypeStruct,
    hidden: int,
    *,
    only_scan: str | None = None,
    full: bool = False,
    where: str,
) -> Choice:
    """The method that runs and all of its sizes, by the first of these rules that holds.

    `only_scan`: why only the scan has this layer, if so.

    1. What the caller asked for; but only the scan can have a symbolic dimension or such a layer,
       and an empty array is left to it.
    2. The scan where a dimension is symbolic, so that a program exports for any size.
    3. The scan for a layer whose step has two successive products, or noise.
    4. `"dense"` on a GPU, where launching kernels dominates: it takes `UNROLL` steps an iteration.
    5. The scan under a mesh outside `shard_map`: any row may come to any slot, so all would be
       gathered.
    6. The scan on anything but a CPU, where nothing else was measured.
    7. The scan for states of less than `LEAST_HIDDEN` features, and for an empty array.
    8. `"dense"` where there is little to skip: for up to `FEW` rows, and where there is
       no mask or rows are packed, with `LEAST_HIDDEN_FULL` features or more, else the scan.
    9. The scan for rows of less than `LEAST_TIME` steps.
    10. `"tiled"`.
    """
    if not isinstance(method, Choice):
        _check.choice(method, _check.METHODS, where, "method")
    asked = method if isinstance(method, Choice) else Choice(method)
    batch, time = x.shape[:2]
    cannot = only_scan or _cannot(batch, time)
    if over_explicit(x):
        cannot = cannot or "rows are spread over explicit axes of a mesh, outside `jax.shard_map`"
    if cannot is not None and asked.method not in ("auto", "scan"):
        raise ValueError(f'{where}: `method="{asked.method}"` cannot run: {cannot}. Pass "auto".')
    if cannot is None and x.size == 0:
        return Choice("scan", reason="there is nothing to run")
    name, reason = asked.method, asked.reason or "asked for"
    if name == "auto":
        name, reason = _best(x, hidden, full, cannot)
    if name == "scan":
        return Choice("scan", reason=reason)
    slots, steps, unroll = _sizes(name, batch, time)
    slots = tuple(sorted({min(n, batch) for n in asked.slots or slots}))
    return Choice(name, slots, asked.steps or steps, asked.unroll or unroll, reason)


def is_full(mask: Mask, segments: Any) -> bool:
    """Whether all steps are real, or nearly all, as in packed rows."""
    return mask is None or segments is not None or isinstance(mask, Segments)


def explain(
    batch: Any,
    time: Any,
    hidden: int,
    *,
    cell: str = "lstm",
    reset_after: bool = True,
    projection: bool = False,
    recurrent_dropout: bool = False,
    full: bool = False,
    method: str | Choice = "auto",
) -> Choice:
    """Say which method runs here and now, with which sizes, and why.

    Every method takes any mask, and the position of its real steps does not change their cost.
    Activations, a clipped cell and peepholes change nothing in the choice.

    Args:
      batch: number of rows.
      time: number of steps, padding included.
      hidden: number of hidden features.
      cell: `"lstm"`, `"gru"` or `"simple"`.
      reset_after: of the GRU, see `jaxmask.recurrent.gru`.
      projection: the weights of the LSTM have a `w_p`.
      recurrent_dropout: there is one.
      full: there is no mask, or rows are packed.
      method: what is passed as `method` to `jaxmask.recurrent.lstm`.

    Returns:
      A `Choice`, which may be passed as `method` in turn. The scan has no sizes.

    Example:
      >>> import jaxmask as jm
      >>> jm.recurrent.explain(64, 256, 8).reason
      'states of less than 16 features are faster in a scan'
      >>> jm.recurrent.explain(64, 256, 256, method="dense").slots
      (64,)
      >>> jm.recurrent.explain(64, 256, 256, cell="gru", reset_after=False).reason
      'a GRU that resets before the product has two products in a row'
    """
    _check.choice(cell, CELLS, "explain", "cell")
    x = jax.ShapeDtypeStruct((batch, time, 1), "float32")
    reason = only_scan(
        reset_after=reset_after, projection=projection, recurrent_dropout=recurrent_dropout
    )
    return choose(method, x, hidden, only_scan=reason, full=full, where="explain")


def _sizes(method: str, batch: int, time: int) -> tuple[tuple[int, ...], int, int]:
    """Slots, steps of a chunk, and steps per iteration, for sizes that the caller left open.

    With few slots, fewer are idle while the longest row ends; with many, a product has more rows.
    The whole batch is stepped at once on an accelerator, and where there are few rows.
    """
    on_cpu = jax.default_backend() == "cpu"
    unroll = 1 if on_cpu else min(UNROLL, time)
    if method == "pallas":
        return (KERNEL_ROWS,), KERNEL_STEPS, unroll
    if method == "tiled" and on_cpu and batch > FEW:
        slots = {_slots(share, batch) for share in SHARES}
        return tuple(sorted(slots)), min(STEPS, time), unroll
    steps = STEPS_ONE if batch == 1 else STEPS_FEW if batch <= FEW else STEPS
    return (batch,), min(steps, time), unroll


def _slots(share: float, batch: int) -> int:
    slots = max(LEAST_SLOTS, math.ceil(share * batch))
    return min(batch, slots // EVEN * EVEN if slots > EVEN and share < 1 else slots)


def only_scan(
    *, reset_after: bool = True, projection: bool = False, recurrent_dropout: bool = False
) -> str | None:
    """Why only the scan has a layer with these options, if so."""
    if not reset_after:
        return "a GRU that resets before the product has two products in a row"
    if projection:
        return "a projection is a second product in a row"
    if recurrent_dropout:
        return "a recurrent dropout draws for each row, and the engine steps any row in any slot"
    return None


def _cannot(batch: Any, time: Any) -> str | None:
    if not (isinstance(batch, int) and isinstance(time, int)):
        return "a dimension is symbolic, and the engine needs its size when traced"
    return None


def _best(
    x: Steps | jax.ShapeDtypeStruct, hidden: int, full: bool, cannot: str | None
) -> tuple[str, str]:
    """The method that `"auto"` takes, and the reason."""
    backend = jax.default_backend()
    if cannot is not None:
        return "scan", cannot
    if backend == "gpu":
        return (
            "dense",
            "loop overhead dominates on a GPU, so several steps are unrolled per iteration",
        )
    if spreads_rows(x):
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
