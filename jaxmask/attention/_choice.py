"""Which method runs an attention, with blocks of which size, and why."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._meshes import spreads_rows
from jaxmask._types import Array, Window

METHODS = ("auto", "reference", "blocks", "cudnn", "splash")

# Measured on two cores, see docs/attention.md.
BLOCK = 128  # queries, and keys, of a block
# XLA gives a product to one thread where a head has less than about 2^23 multiplications.
LARGE_QUERIES, LARGE_KEYS = 256, 512
LEAST_LARGE = 1024  # steps of a row
LEAST_PAIRS = 2**14  # of queries and keys in a row


@dataclasses.dataclass(frozen=True)
class Choice:
    """A method and its sizes: what `method=` takes besides a name, and what `explain` returns.

    Sizes left at 0 are chosen as for the method's name alone; the reference has none. Choices that
    differ only in `reason` are equal: they share what is compiled.

    Attributes:
      method: `"auto"`, `"reference"`, `"blocks"`, `"cudnn"` or `"splash"`, see
        `jaxmask.attention.attend`.
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


class Asks(NamedTuple):
    """What a call asks for besides its sizes; the rule reads nothing else.

    `apart`: queries and keys are packed differently. `dense`: a predicate or given positions, so
    that only a mask of all pairs says what is seen.
    """

    causal: bool = False
    window: Window = None
    packed: bool = False
    apart: bool = False
    dense: bool = False
    bias: bool = False
    softcap: bool = False
    noise: bool = False
    return_weights: bool = False


def choose(
    method: str | Choice,
    q: Array | jax.ShapeDtypeStruct,
    k: Array | jax.ShapeDtypeStruct,
    v: Array | jax.ShapeDtypeStruct,
    where: str,
    asks: Asks,
) -> Choice:
    """The method that runs and its sizes, by the first of these rules that holds.

    1. What the caller asked for; but only the reference can have a symbolic dimension or return the
       weights, and an empty array is left to it; and where a kernel of an accelerator has no place
       for what is asked, the reference takes its place.
    2. The reference where a dimension is symbolic, so that a program exports for any size, and
       where the weights are returned.
    3. The reference on anything but a CPU, where blocks and kernels were not measured.
    4. The reference under a mesh outside `shard_map`: blocks take row by row, so all rows would be
       gathered.
    5. The reference for rows with less than `LEAST_PAIRS` pairs of a query and a key.
    6. `"blocks"`.
    """
    if not isinstance(method, Choice):
        _check.choice(method, METHODS, where, "method")
    asked = method if isinstance(method, Choice) else Choice(method)
    cannot = _cannot(q, k, asks)
    if cannot is not None and asked.method == "blocks":
        raise ValueError(f'{where}: `method="blocks"` cannot run: {cannot}. Pass "auto".')
    if cannot is not None:
        return Choice("reference", reason=cannot)
    if 0 in (*q.shape, *k.shape):
        return Choice("reference", reason="there is nothing to run")
    if asked.method in ("cudnn", "splash"):
        refused = _no_cudnn(q, k, v, asks) if asked.method == "cudnn" else _no_splash(asks)
        if refused is None:
            return Choice(asked.method, reason=asked.reason or "asked for")
        return Choice("reference", reason=refused)
    name, reason = asked.method, asked.reason or "asked for"
    if name == "auto":
        name, reason = _best(q, k)
    if name == "reference":
        return Choice("reference", reason=reason)
    narrow = asks.packed or asks.window is not None
    queries, keys = (
        min(asked_size or _block(x.shape[1], large, narrow), x.shape[1])
        for asked_size, large, x in (
            (asked.queries, LARGE_QUERIES, q),
            (asked.keys, LARGE_KEYS, k),
        )
    )
    return Choice(name, queries, keys, reason)


def explain(
    q_shape: Sequence[Any],
    k_shape: Sequence[Any] | None = None,
    *,
    causal: bool = False,
    window: Window = None,
    packed: bool = False,
    bias: bool = False,
    predicate: bool = False,
    softcap: float | None = None,
    dropout_rate: float = 0.0,
    return_weights: bool = False,
    dtype: jax.typing.DTypeLike = "float32",
    method: str | Choice = "auto",
) -> Choice:
    """Say which method of `attend` runs here and now, with blocks of which size, and why.

    Args:
      q_shape: `[batch, query, heads, head_features]`.
      k_shape: `[batch, key, kv_heads, head_features]`; `q_shape` where None.
      packed: the masks are `Segments`, one and the same of queries and keys.
      bias: whether there is one.
      predicate: whether there is one, or positions are given.
      dtype: of the queries.
      causal, window, softcap, dropout_rate, return_weights, method: what is passed to `attend`.

    Returns:
      A `Choice`, which may be passed as `method` in turn. Only blocks have sizes.

    Raises:
      ValueError: if a shape does not have four axes, `method` is unknown, or it cannot run.

    Example:
      >>> import jaxmask as jm
      >>> jm.attention.explain((32, 64, 8, 64)).method
      'reference'
      >>> jm.attention.explain((4, 2048, 8, 64), window=128, method="blocks").keys
      128
      >>> jm.attention.explain((4, 2048, 8, 64), dropout_rate=0.1, method="splash").reason
      'splash attention draws no noise that padding leaves alone'
    """
    q_shape = tuple(q_shape)
    k_shape = q_shape if k_shape is None else tuple(k_shape)
    for shape, name, time in ((q_shape, "q_shape", "query"), (k_shape, "k_shape", "key")):
        if len(shape) != 4:
            raise ValueError(
                f"explain: `{name}` must be [batch, {time}, heads, head_features], got {shape}."
            )
    q, k = (jax.ShapeDtypeStruct(shape, dtype) for shape in (q_shape, k_shape))
    window = _check.window(window, "explain")
    asks = Asks(
        *(causal, window, packed, False, predicate, bias, softcap is not None),
        noise=bool(dropout_rate),
        return_weights=return_weights,
    )
    return choose(method, q, k, k, "explain", asks)


def _block(time: int, large: int, narrow: bool) -> int:
    """Small where whole blocks are hidden often, and where there are few of them in a row."""
    return BLOCK if narrow or time < LEAST_LARGE else large


def _cannot(q: Any, k: Any, asks: Asks) -> str | None:
    if asks.return_weights:
        return "the weights are returned, and blocks hold none of all pairs"
    if all(isinstance(size, int) for size in (*q.shape, *k.shape)):
        return None
    return "a dimension is symbolic, and blocks need its size when traced"


def _no_cudnn(q: Any, k: Any, v: Any, asks: Asks) -> str | None:
    """Why `jax.nn.dot_product_attention(implementation="cudnn")` cannot run, if so."""
    if not has_cudnn():
        return "cuDNN is a library of CUDA, which is not in use here"
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return "cuDNN attends in bfloat16 and float16 alone"
    if q.shape[3] % 8 or q.shape[3] > 128 or v.shape[3] != q.shape[3]:
        return "cuDNN needs heads of a multiple of 8 features, at most 128, values like keys"
    if asks.softcap:
        return "cuDNN has no cap"
    if asks.noise:
        return "cuDNN draws no noise that padding leaves alone"
    odd = q.shape[1] % 2 or k.shape[1] % 2
    if odd and needs_all_pairs(asks):
        return "cuDNN needs even numbers of queries and keys beside a bias or a mask of all pairs"
    return None


def has_cudnn() -> bool:
    return jax.default_backend() == "gpu" and "cuda" in jax.devices()[0].client.platform_version


def needs_all_pairs(asks: Asks) -> bool:
    """Whether lengths do not say what is seen, so that cuDNN gets a mask of all pairs."""
    left, right = asks.window if isinstance(asks.window, tuple) else (asks.window, asks.window)
    ahead = right is not None and not asks.causal
    return asks.packed or asks.dense or asks.bias or ahead or (left is not None and not asks.causal)


def _no_splash(asks: Asks) -> str | None:
    """Why splash attention cannot run, if so."""
    if asks.noise:
        return "splash attention draws no noise that padding leaves alone"
    if asks.bias or asks.dense:
        return "splash attention has no bias, and masks that no array of all pairs has to say"
    if asks.apart and (asks.causal or asks.window is not None):
        return "splash attention compares columns, which differently packed rows do not share"
    return None


def _best(q: Any, k: Any) -> tuple[str, str]:
    """The method that `"auto"` takes, and the reason."""
    if jax.default_backend() != "cpu":
        return "reference", "blocks were not measured on this kind of device"
    if spreads_rows(q):
        return "reference", "rows under a mesh outside `shard_map` would all be gathered"
    if q.shape[1] * k.shape[1] < LEAST_PAIRS:
        return "reference", f"rows of less than {LEAST_PAIRS} pairs compile faster at once"
    return "blocks", "blocks in which no query sees a key cost nothing"
