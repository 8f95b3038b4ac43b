"""`leak.check` and its assertion."""

from typing import Any

import jax
import numpy as np

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._types import PyTree
from jaxmask.leak._checker import Checker
from jaxmask.leak._findings import LeakError, LeakReport
from jaxmask.leak._layouts import MOVES
from jaxmask.leak._proof.inputs import flat_masks
from jaxmask.leak._proof.prove import Proofs
from jaxmask.leak._subject import WHERE, marks_of
from jaxmask.leak._tables import Tables

POISON = ("unproved", "all")


@refusing_pairs
def check(
    fn: Any,
    x: PyTree,
    mask: Any,
    *,
    moves: tuple[str, ...] = (),
    params: PyTree = None,
    poison: str = "unproved",
) -> LeakReport:
    """Prove or test that padding changes no result of a function, in value or in gradient.

    First `prove` is asked, at the given shape and for each of `moves`. Where something is not
    proved, the padding is filled with nan, infinities, huge and ordinary values, sentinels such as
    0 and -1, and copies of real steps: a difference convicts; without one the result is undecided.
    Then, always, 1, 2 and 3 steps of padding are appended on the right, and as many as the input
    has (gradients are compared with 1 and with as many); and it is moved as `moves` say. Values and
    masks at real steps must not change. Nor must the gradients for a fixed random cotangent at real
    steps, in `x` at real steps and in the parameters; in `x` at padded steps they must be 0 while
    the padding is finite and of unit scale. Nor may anything be nan, whatever the padding holds,
    that is nan for no row alone: a 0 that is put in the padding does that to the gradient of a
    norm.

    Each mistake is one finding: the line of your file at which padding comes in, what stands there,
    and how far it alone moves the results. To find it, two runs that differ in their padding go
    through the program side by side; where real elements differ after an operation, it is to blame,
    and the second run continues with the elements of the first, as if it were repaired.

    The function runs operation by operation, since XLA may hide a leak: it turns a product with a
    mask into a select, so that nan stays in the padding; in another program it spreads. With
    `poison="all"` every content of the padding is tried, proved or not, in two programs: compiled
    whole, as XLA optimises it by default (on CPU without LLVM's optimisations, which do not change
    what is computed), and, at the smallest shape with padding, operation by operation.

    What was traced, compiled and proved is kept for the last eight functions. A later check of the
    same object traces it once and takes what is kept if the program is the same as before.

    At the same shape results must agree bit for bit. Between shapes each entry may differ by

        4 * spread + 4 ε |entry|

    where ε is that of its type, and `spread` is how far the entry moves at most in twelve runs in
    which the result of each rounding operation moves by up to two units in the last place at
    random. Matrix products run at the highest precision unless JAX is configured otherwise.

    A test does not cover: padding beyond twice the length (buckets, blocks); leaks that only other
    real values show (a maximum that takes 0 for padding is right if all of `x` is above 0, so
    include both signs); second derivatives and forward mode; state of a module other than batch
    statistics; results that are wrong for any padding, but not nan; changes below the tolerance.

    Args:
      fn: any function that `jax.jit` can trace, from jaxmask or not: `fn(x, mask)`, or
        `fn(params, x, mask)` with `params`, or an `nnx.Module` called as `module(x, mask)`, whose
        parameters are `params` and whose batch statistics after the call are one more result. The
        module itself does not change. A module that takes no mask is called as `module(x)`, and its
        results have the mask: `mask` where they have its time axis, else that of rows with real
        steps. Arrays that `fn` closes over are constants.
      x: `[batch, time, ...]`, floating, integer or boolean, or a pytree of such arrays; `[batch,
        ...]` under a row mask. The padding of integers is filled with 0, -1, -100, the lowest and
        the highest integer of the dtype, and values in the range of the real ones.
      mask: `[batch, time]`, boolean; or a row mask `[batch]`, whose padding is rows; or `Segments`,
        in which case each sequence is also checked against the others in its row. One for all of
        `x`: where arrays have masks of their own, check one pair at a time and close over the rest.
      moves: layouts to try in addition, for functions that promise to take them. `"left"`: padding
        on the left. `"holes"`: padding between real steps. `"empty"`: rows without real steps,
        which must give 0 and False if pooled, else False and finite values, and change no other
        row. `"permute"`: rows in another order, and rows replaced by others, which must change no
        other row.
      params: a pytree of arrays.
      poison: `"unproved"`: what is proved is not tried again. `"all"`: it is.

    Returns:
      A `LeakReport`: `.ok` without findings, `.findings`, `.proved`, `.undecided`, the `.witnesses`
      array by array, and a text that says what was and was not tried. In a tuple
      `(values, boolean mask)`, anywhere in the output, entries count where the mask is True. Of any
      other array (a loss, a carry) all entries count; with more padding it may grow by zeros only.

    Raises:
      TypeError, ValueError, MaskError: if an argument is not as above, the mask marks nothing as
        real, or `fn` differs from call to call, or changes a module that it closes over.
        Errors of `fn` at the given shapes are raised; at longer ones they are reported as
        not tested.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.arange(1.0, 7).reshape(1, 6), jnp.arange(6)[None] < 4
      >>> jm.leak.check(lambda x, mask: (jnp.where(mask, x, 0).mean(1), mask.any(1)), x, mask).ok
      False
      >>> jm.leak.check(jm.pool.mean, x, mask, moves=("left", "holes", "empty")).ok
      True
    """
    for move in moves:
        _check.choice(move, MOVES, WHERE, "moves")
    _check.choice(poison, POISON, WHERE, "poison")
    _refuse_masks(mask)
    _refuse_unreal(marks_of(mask, WHERE)[0])
    proofs = Proofs(fn, x, mask, params, WHERE)
    of_steps = [move for move in moves if move != "permute"]
    if proofs.inputs.marks.ndim == 1 and of_steps:
        raise ValueError(
            f"{WHERE}: the moves {of_steps} need a mask [batch, time], got a row mask [batch]."
        )
    # The nan and inf in the padding are deliberate.
    with jax.debug_nans(False), jax.debug_infs(False), jax.default_matmul_precision(_precision()):
        checker = Checker(proofs, Tables(fn), everything=poison == "all")
        return checker.report(tuple(dict.fromkeys(moves)))


@refusing_pairs
def assert_padding_invariant(
    fn: Any,
    x: PyTree,
    mask: Any,
    *,
    moves: tuple[str, ...] = (),
    params: PyTree = None,
    poison: str = "unproved",
) -> None:
    """Raise a `LeakError` with the text of the report if `check` finds a leak, for use in tests.

    Args:
      fn, x, mask, moves, params, poison: as in `check`.

    Raises:
      LeakError: an `AssertionError`, if padding leaks. Other errors as in `check`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.arange(1.0, 7).reshape(1, 6), jnp.arange(6)[None] < 4
      >>> jm.leak.assert_padding_invariant(jm.ops.softmax, x, mask)
    """
    __tracebackhide__ = True  # pytest shows the report alone
    report = check(fn, x, mask, moves=moves, params=params, poison=poison)
    if not report.ok:
        raise LeakError(str(report))


def _refuse_masks(mask: Any) -> None:
    """Layouts are those of one mask: `prove` and a function of one pair take several."""
    masks, tree = flat_masks(mask)
    if tree is not None:
        raise TypeError(
            f"{WHERE}: `mask` must be one mask for all of `x`, got a {type(mask).__name__} of "
            f"{len(masks)}. `jm.leak.prove(fn, x, mask)` takes masks of several lengths; to test "
            "their amount and place too, check one pair after the other: `jm.leak.check(lambda x, "
            "mask: fn([x, other], [mask, other_mask]), x, mask)`."
        )


def _refuse_unreal(marks: np.ndarray) -> None:
    if not (marks > 0).any():
        raise ValueError(
            f"{WHERE}: the mask marks no step as real, so there is nothing that padding could "
            'leak into. Give rows with real steps; `moves=("empty",)` empties the rows itself.'
        )


def _precision() -> str:
    # Off the CPU, float32 products may round like shorter types, differently for each shape.
    return jax.config.jax_default_matmul_precision or "highest"  # type: ignore[attr-defined]
