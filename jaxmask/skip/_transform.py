"""`skip_padding` runs a masked function at the cost of its real steps."""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, ops
from jaxmask._errors import refusing_pairs
from jaxmask._report import Report
from jaxmask._steps import gather
from jaxmask._types import Array, Mask, PyTree, StepMask
from jaxmask.skip import _running as running
from jaxmask.skip._arguments import checked_kinds, names_row_ids, read, row_ids
from jaxmask.skip._checking import compare
from jaxmask.skip._groups import varying
from jaxmask.skip._places import rows_filled
from jaxmask.skip._plan import LENGTHS, WHERE, Plan, checked_lengths, make
from jaxmask.skip._results import Result, check_whole
from jaxmask.skip._tracing import trace


class SkipPadding:
    """What `skip_padding` returns: call it with `(x, mask, *rest)`.

    Attributes:
      adapters: for each type of function that holds state, what `skip_padding` calls instead, with
        the same arguments. `jaxmask.nn` registers `nnx.Module` when it is imported.

    Example:
      >>> import jaxmask as jm
      >>> g = SkipPadding(jm.ops.cumsum, lengths=(2,), groups=2)
      >>> y, mask = g(*jm.pad_sequences([[1.0, 2.0, 3.0], [4.0]]))
      >>> y.tolist()
      [[1.0, 3.0, 6.0], [4.0, 0.0, 0.0]]
    """

    adapters: ClassVar[dict[type, Callable[..., Any]]] = {}

    def __init__(
        self,
        f: Callable[..., tuple[Any, Any]],
        *,
        lengths: int | Sequence[int] = LENGTHS,
        groups: int | None = None,
        rest: str | Sequence[str] = "shared",
        compact: bool = False,
        pack: bool | int = False,
    ):
        _check.function(f, WHERE, "f")
        self.f = f
        self.lengths = checked_lengths(lengths)
        self.groups = _check.optional_count(groups, WHERE, "groups", least=1)
        self.rest = checked_kinds(rest)
        self.compact = compact
        self.pack = self._checked_pack(pack)

    def _checked_pack(self, pack: bool | int) -> bool | int:
        if pack is False:
            return False
        if self.groups is not None or self.lengths != LENGTHS:
            raise ValueError(
                f"{WHERE}: packed rows have the full length, so `lengths` and `groups` have no "
                "meaning with `pack`, whose number says how many of them run at once."
            )
        if "row" in ((self.rest,) if isinstance(self.rest, str) else self.rest):
            raise ValueError(
                f'{WHERE}: an argument by "row" has no row to go with once rows are packed. Leave '
                '`pack` False, repeat it for each step and say "step", or say "row_ids" if it '
                "names rows for noise."
            )
        return pack if pack is True else _check.count(pack, WHERE, "pack", least=1)

    @refusing_pairs
    def __call__(self, x: PyTree, mask: Mask, *rest: Any) -> tuple[Any, Any]:
        """What `f(x, mask, *rest)` returns, with 0 beyond the length of a row."""
        if mask is None:
            return self._as_it_is(x, mask, *rest)
        call, plan = read(self.f, x, mask, rest, self.rest), self.plan(mask)
        if not plan.lengths:
            return self._as_it_is(x, mask, *rest)
        arrays = call.arrays()
        real = arrays.real(call.mask_at)
        move = ops.compact if self.compact else ops.fill
        arrays = arrays._replace(steps=[move(a, real)[0] for a in arrays.steps])
        # So that the gradients of weights are summed over the devices of a `shard_map`.
        weights = [varying(a, arrays.steps[0]) for a in arrays.weights]
        programs, arrays = trace(self.f, call, plan, arrays._replace(weights=weights))
        try:
            results = running.run(programs, arrays)
        except TypeError as error:
            if "custom_vjp" not in str(error):
                raise
            raise TypeError(
                f"{WHERE}: there is no forward-mode derivative (`jax.jvp`, `jax.jacfwd`). Call `f` "
                "itself for it."
            ) from error
        return _spread(results, programs.results, real) if self.compact else results

    def _as_it_is(self, *arguments: Any) -> tuple[Any, Any]:
        named = names_row_ids(self.f, arguments)
        results = self.f(*arguments, **({"row_ids": row_ids(arguments[0])} if named else {}))
        check_whole(results, arguments[0])
        return results

    def explain(self, x: PyTree, mask: Mask) -> Plan:
        """How this batch would be cut, and why; shapes are enough, but for `packed_rows`."""
        del x
        plan = self.plan(mask)
        seen = _check.known(mask) if plan.sequences else None  # type: ignore[arg-type]
        if seen is None:
            return plan
        return replace(plan, packed_rows=rows_filled(seen, plan.sequences))

    def plan(self, mask: Mask) -> Plan:
        """`explain` by the shape of the mask alone, as a call does it."""
        return make(mask, self.lengths, self.groups, self.pack)

    def check(self, x: PyTree, mask: Mask, *rest: Any, tolerance: float = 1e-4) -> Report[str]:
        """Compare with `f` on the batch as it is, in values and gradients.

        This finds what shapes do not show: a function that mixes rows, reads the size of the time
        axis, or draws noise that is not keyed by its row. Compared are the batch as given, and the
        batch with its rows cut so that groups run at every length.

        Args:
          x: as in a call, but with known values: not under `jit`.
          mask: as in a call.
          *rest: as in a call.
          tolerance: relative to the largest absolute value of each array.

        Returns:
          A `Report`; it does not raise.
        """
        plan = self.plan(mask)
        call = read(self.f, x, mask, rest, self.rest) if plan.lengths else None
        return compare(self, call, plan, tolerance)


def _spread(results: Any, shapes: Sequence[Result], real: StepMask) -> Any:
    """Results by step, back from the left end of each row to its real steps."""
    rank = jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0)

    def back(y: Array, result: Result) -> Array:
        if not result.over_time:
            return y
        if result.over_time != (1,) or y.shape[:2] != real.shape:
            raise ValueError(
                f"{WHERE}: with `compact=True`, `f` must return one value for each step, "
                f"{real.shape}, since other results have no step to go back to, got {y.shape}."
            )
        moved = gather(y, rank)
        return jnp.where(_mask_ops.expand(real, y.ndim), moved, jnp.zeros_like(moved))

    leaves, tree = jax.tree.flatten(results)
    return jax.tree.unflatten(tree, map(back, leaves, shapes))


def skip_padding(
    f: Callable[..., tuple[Any, Any]],
    *,
    lengths: int | Sequence[int] = LENGTHS,
    groups: int | None = None,
    rest: str | Sequence[str] = "shared",
    compact: bool = False,
    pack: bool | int = False,
) -> Any:
    """Run a masked function at the lengths that its rows really have.

        skip_padding(f)(x, mask, *rest) = f(x, mask, *rest)

    in values and gradients, in one compiled program for any lengths. The rows are sorted by the
    place of their last real step and cut into groups; a scan over the groups runs each at the
    shortest of a few static lengths that holds it. Time follows the real steps, up to that
    rounding, and memory is that of one group: a backward pass keeps the inputs alone and runs the
    forward of a group again. Each length is one more program to compile, so call it under `jit`.

    With `pack`, short rows are packed into one of full length instead, first fit, the longest
    first, and `f` gets `Segments` in the place of the mask. One program runs in a loop over the
    packed rows that are in use. It compiles faster, rounds less, and keeps the products of the
    forward pass (of up to 3/8 of the batch), so that training gains more.

    It is right for every function to which padding makes no difference, however much of it there
    is, and whose rows do not see each other: all masked functions of this library but batch norm
    in training and contrastive losses. `pack` needs more: that `f` keeps the sequences of a packed
    row apart, and returns a value for each step or each sequence. `.check(x, mask)` compares with
    `f` itself.

    Mask class: that of `f`. Padding on the left and holes save no time, unless `compact=True`.

    Args:
      f: a function of `(x, mask, *rest)` that returns `(y, mask)` or `(carry, (y, mask))`. `x` may
        be a pytree of arrays with the same mask. A parameter named `row_ids` that the call leaves
        out gets the index of each row in the batch, which noise needs: a group has other indices.
        A module of Flax gives `jaxmask.nn.SkipPadding`.
      lengths: how many static lengths, each half of the one above (rounded up to multiples of 8),
        or the lengths themselves; the size of the time axis is always one of them.
      groups: number of groups; by the number of rows where None.
      rest: what the further arguments are, one for all or one for each: `"shared"` by all rows,
        such as parameters; `"row"`, `[batch, ...]`; `"step"`, `[batch, time, ...]`; `"row_ids"`,
        integers `[batch]` or `[batch, n]` that `f` hands on to noise.
      compact: move real steps to the left first, and results back: for functions that act on real
        steps only (mask class any), and return one value for each.
      pack: pack rows, and run as many packed rows at once as fill 512 steps, or this number. A
        recurrent `f` wants all of them at once: about the share of real steps times the batch.

    Returns:
      A function of `(x, mask, *rest)`. Results may have any shape whose first axis holds the rows;
      axes that follow the length are filled with 0. `mask=None` runs `f` as it is, as do symbolic
      dimensions and a mesh outside `shard_map`; `.explain(x, mask)` says so.

    Raises:
      TypeError: if `f` returns no pair; on call, for a forward-mode derivative.
      ValueError: if a result has no axis of rows, such as a loss; if the time axis of its mask does
        not follow the length; if `lengths`, `groups`, `rest` or `pack` do not fit; if noise
        inside has no `row_ids`.
      MaskError: if `mask` does not belong to `x`, is a row mask, or is lost by `f`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> x = jax.random.normal(jax.random.key(0), (8, 64, 4))
      >>> mask = jm.masks.from_lengths(jnp.array([3, 9, 64, 1, 20, 5, 8, 2]), 64)
      >>> g = jax.jit(jm.skip_padding(jm.ops.softmax))
      >>> y, y_mask = g(x, mask)
      >>> bool(jnp.allclose(y, jm.ops.softmax(x, mask)[0])), bool((y_mask == mask).all())
      (True, True)
      >>> jm.skip_padding(jm.ops.softmax, pack=True).check(x, mask).ok
      True
    """
    options: dict[str, Any] = {"lengths": lengths, "groups": groups, "compact": compact}
    options["pack"] = pack
    if "flax.nnx" in sys.modules:  # else `f` is no module of Flax
        importlib.import_module("jaxmask.nn")  # registers its adapter; it lies above this module
    for kind, adapter in SkipPadding.adapters.items():
        if isinstance(f, kind):
            if rest != "shared":
                raise TypeError(
                    f"{WHERE}: a module is called with `(x, mask)` alone, so `rest` has no meaning "
                    "for it. Wrap a function that calls it."
                )
            return adapter(f, **options)
    return SkipPadding(f, rest=rest, **options)
