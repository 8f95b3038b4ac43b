"""Which method runs an attention, with blocks of which size, and why."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from jaxmask import _check
from jaxmask._meshes import spreads_rows
from jaxmask._types import Array, Window

METHODS = ("auto", "reference", "blocks")

# Measured on two cores, see docs/attention.md.
BLOCK, LARGE_BLOCK = 128, 256  # queries, and keys, of a block
LEAST_LARGE = 2048  # steps of a row
LEAST_PAIRS = 2**14  # of queries and keys in a row


@dataclasses.dataclass(frozen=True)
class Choice:
    """A method and its sizes: what `method=` takes besides a name, and what `explain` returns.

    Sizes left at 0 are chosen as for the method's name alone; the reference has none. Choices that
    differ only in `reason` are equal: they share what is compiled.

    Attributes:
      method: `"auto"`, `"reference"` or `"blocks"`, see `jaxmask.attention.attend`.
      queries: the queries of a block.
      keys: the keys of a block.
      reason: why this method was chosen.

    Raises:
      TypeError, ValueError: if `method` is unknown, or a size is not a non-negative integer.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 5, 1, 2)), jnp.array([[True, True, True, False, False]])
      >>> choice = jm.attention.Choice("blocks", queries=2, keys=2)
      >>> y, _ = jm.attention.attend(x, mask, x, x, mask, method=choice)
      >>> y[0, :, 0, 0].tolist()
      [1.0, 1.0, 1.0, 0.0, 0.0]
    """

    method: str
    queries: int = 0
    keys: int = 0
    reason: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        _check.choice(self.method, METHODS, "Choice", "method")
        _check.count(self.queries, "Choice", "queries")
        _check.count(self.keys, "Choice", "keys")


def choose(
    method: str | Choice,
    q: Array | jax.ShapeDtypeStruct,
    k: Array | jax.ShapeDtypeStruct,
    where: str,
    *,
    narrow: bool = False,
    return_weights: bool = False,
) -> Choice:
    """The method that runs and its sizes, by the first of these rules that holds.

    `narrow`: a window or packing lets a query see few keys.

    1. What the caller asked for; but only the reference can have a symbolic dimension or return the
       weights, and an empty array is left to it.
    2. The reference where a dimension is symbolic, so that a program exports for any size, and
       where the weights are returned.
    3. The reference on anything but a CPU, where blocks were not measured.
    4. The reference under a mesh outside `shard_map`: blocks take row by row, so all rows would be
       gathered.
    5. The reference for rows with less than `LEAST_PAIRS` pairs of a query and a key.
    6. `"blocks"`.
    """
    if not isinstance(method, Choice):
        _check.choice(method, METHODS, where, "method")
    asked = method if isinstance(method, Choice) else Choice(method)
    cannot = _cannot(q, k, return_weights)
    if cannot is not None and asked.method == "blocks":
        raise ValueError(f'{where}: `method="blocks"` cannot run: {cannot}. Pass "auto".')
    if cannot is not None:
        return Choice("reference", reason=cannot)
    if 0 in (*q.shape, *k.shape):
        return Choice("reference", reason="there is nothing to run")
    name, reason = asked.method, asked.reason or "asked for"
    if name == "auto":
        name, reason = _best(q, k)
    if name == "reference":
        return Choice("reference", reason=reason)
    queries, keys = (
        min(asked_size or _block(x.shape[1], narrow), x.shape[1])
        for asked_size, x in ((asked.queries, q), (asked.keys, k))
    )
    return Choice(name, queries, keys, reason)


def explain(
    q_shape: Sequence[Any],
    k_shape: Sequence[Any] | None = None,
    *,
    window: Window = None,
    packed: bool = False,
    return_weights: bool = False,
    method: str | Choice = "auto",
) -> Choice:
    """Say which method of `attend` runs here and now, with blocks of which size, and why.

    Args:
      q_shape: `[batch, query, heads, head_features]`.
      k_shape: `[batch, key, kv_heads, head_features]`; `q_shape` where None.
      window: what is passed as `window` to `attend`.
      packed: the masks are `Segments`.
      return_weights: what is passed as `return_weights` to `attend`.
      method: what is passed as `method` to `attend`.

    Returns:
      A `Choice`, which may be passed as `method` in turn. The reference has no sizes.

    Raises:
      ValueError: if a shape does not have four axes, `method` is unknown, or it cannot run.

    Example:
      >>> import jaxmask as jm
      >>> jm.attention.explain((32, 64, 8, 64)).method
      'reference'
      >>> jm.attention.explain((4, 2048, 8, 64), window=128, method="blocks").keys
      128
    """
    q_shape = tuple(q_shape)
    k_shape = q_shape if k_shape is None else tuple(k_shape)
    for shape, name, time in ((q_shape, "q_shape", "query"), (k_shape, "k_shape", "key")):
        if len(shape) != 4:
            raise ValueError(
                f"explain: `{name}` must be [batch, {time}, heads, head_features], got {shape}."
            )
    q, k = (jax.ShapeDtypeStruct(shape, "float32") for shape in (q_shape, k_shape))
    narrow = packed or _check.window(window, "explain") is not None
    return choose(method, q, k, "explain", narrow=narrow, return_weights=return_weights)


def _block(time: int, narrow: bool) -> int:
    """Small where whole blocks are hidden often, and where there are few of them in a row."""
    return BLOCK if narrow or time < LEAST_LARGE else LARGE_BLOCK


def _cannot(q: Any, k: Any, return_weights: bool) -> str | None:
    if return_weights:
        return "the weights are returned, and blocks hold none of all pairs"
    if all(isinstance(size, int) for size in (*q.shape, *k.shape)):
        return None
    return "a dimension is symbolic, and blocks need its size when traced"


def _best(q: Any, k: Any) -> tuple[str, str]:
    """The method that `"auto"` takes, and the reason."""
    if jax.default_backend() != "cpu":
        return "reference", "blocks were not measured on this kind of device"
    if spreads_rows(q):
        return "reference", "rows under a mesh outside `shard_map` would all be gathered"
    if q.shape[1] * k.shape[1] < LEAST_PAIRS:
        return "reference", f"rows of less than {LEAST_PAIRS} pairs compile faster at once"
    return "blocks", "blocks in which no query sees a key cost nothing"
