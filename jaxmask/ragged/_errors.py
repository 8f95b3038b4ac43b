"""The errors of `ragged_vmap`, and what to do about each."""

import linecache
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.extend import source_info_util

_LIBRARIES = tuple(
    f"{path}{os.sep}"
    for path in (
        Path(jax.__file__).parent,
        Path(__file__).parent.parent,
        Path(jax.__file__).parent.parent / "flax",
    )
)


class RaggedTraceError(ValueError):
    """A row function cannot be traced at a symbolic length.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jm.pad_sequences([[1.0, 2.0], [3.0]])
      >>> try:
      ...     jm.ragged_vmap(lambda row: sum(row[i] for i in range(len(row))))(x, mask)
      ... except jm.ragged.RaggedTraceError as error:
      ...     print(str(error).split(":")[0])
      ragged_vmap
    """


class UnsupportedPrimitiveError(NotImplementedError):
    """A primitive of JAX is used on a ragged axis and has no rule for it.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jm.pad_sequences([[1.0, 2.0], [3.0]])
      >>> try:
      ...     jm.ragged_vmap(jnp.fft.fft)(x, mask)
      ... except jm.ragged.UnsupportedPrimitiveError as error:
      ...     print("fft" in str(error))
      True
    """


def user_line(equation: Any, callers: Sequence[Any] = ()) -> str:
    """File, line and function in the user's code from which an equation comes.

    JAX caches the trace of a function under `jit` with the lines of its first caller; then this is
    the line of the call (`callers`, outermost first).
    """
    for one in (equation, *reversed(callers)):
        traceback = one.source_info.traceback
        for frame in traceback.frames if traceback is not None else ():
            if not frame.file_name.startswith(_LIBRARIES):
                return f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
    return source_info_util.summarize(equation.source_info)


def unsupported(equation: Any, why: str, callers: Sequence[Any] = ()) -> UnsupportedPrimitiveError:
    """The error for an equation, with its shapes and the alternatives."""
    name = equation.primitive.name
    shapes = ", ".join(str(tuple(getattr(v.aval, "shape", ()))) for v in equation.invars)
    return UnsupportedPrimitiveError(
        f"ragged_vmap: the primitive `{name}` is not supported on ragged axes. {why}\n"
        f"It is used at {user_line(equation, callers)}, on operands of shapes {shapes}.\n"
        "Use other functions for this step, move it out of the row function, or register a rule: "
        f"`jm.ragged.register({name!r}, rule)`."
    )


HINTS: dict[str, str] = {
    "InconclusiveDimensionOperation": (
        "This cannot be decided for every length. If it holds from some length on, pass "
        "`min_length=` (shorter rows give 0 and False); if lengths are multiples of a number, pass "
        "`multiple_of=`. Replace a Python loop over steps by `jax.lax.scan`."
    ),
    "lengths": (
        " Arguments of the same length must share the mask object, or be one pytree argument: "
        "different masks are different lengths."
    ),
    "other": (
        "Python needs a number here, and the length of a row is known only when the program runs. "
        "Instead of `range(len(x))` or a loop over rows: `jax.lax.scan`, `jax.lax.fori_loop` or "
        "`jax.vmap`; instead of `np.arange`, `np.sqrt`, `float(n)` of a length: `jnp.arange`, "
        "`jnp.sqrt`, `jnp.float32(n)`; for `x[n // 2]`: `jax.lax.dynamic_index_in_dim`."
    ),
    "associative scan": (
        "Call it as the attribute `jax.lax.associative_scan`, not by a name imported earlier, or "
        "call `jm.ragged.associative_scan`."
    ),
}


# JAX functions that need a constant size: a word of the line or the error, and an alternative.
INSTEAD: dict[str, str] = {
    "searchsorted": "Count instead: `jnp.sum(a[:, None] < v, axis=0)` is `searchsorted(a, v)`. ",
    "interp": (
        "Find the interval, `k = jnp.clip(jnp.sum(xs < x), 1, xs.shape[0] - 1)`, and interpolate "
        "between `ys[k - 1]` and `ys[k]`. "
    ),
    "permutation": (
        "Sort by random keys: `x[jnp.argsort(jax.random.uniform(key, x.shape[:1]))]`. "
    ),
    "mod(1, ": (
        "For padding that wraps around, as in a circular convolution, convolve "
        "`jnp.concatenate([x[-1:], x, x[:1]])` without padding. "
    ),
}


def trace_error(error: Exception) -> RaggedTraceError:
    """What JAX raised at a symbolic length, and what to do about it."""
    text = str(error)
    if type(error).__name__ == "InconclusiveDimensionOperation":
        hint = HINTS["InconclusiveDimensionOperation"]
    else:
        hint = HINTS["associative scan" if "associative scan" in text else "other"]
    if "time_2" in text:
        hint += HINTS["lengths"]
    where, source = _line_of(error)
    hint = "".join(advice for word, advice in INSTEAD.items() if word in text + source) + hint
    return RaggedTraceError(
        "ragged_vmap: the function cannot be traced at a symbolic length:\n"
        f"{type(error).__name__}: {text.splitlines()[0] if text else ''}\n{where}{hint}"
    )


def state_error(error: Exception) -> RaggedTraceError:
    """The function would change the state of a Flax module that it closes over."""
    return RaggedTraceError(
        "ragged_vmap: the function changes state of a module that it closes over:\n"
        f"{type(error).__name__}: {error}\n{_line_of(error)[0]}"
        "Pass the module itself: `jm.ragged_vmap(module)`, or `jm.nn.RaggedVmap(module)`; or split "
        "and merge it inside the function."
    )


def _line_of(error: Exception) -> tuple[str, str]:
    """The last line of the user's code in a traceback, as a sentence and as source."""
    traceback, line, source = error.__traceback__, "", ""
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not code.co_filename.startswith(_LIBRARIES):
            line = f"It comes from {code.co_filename}:{traceback.tb_lineno} ({code.co_name}).\n"
            source = linecache.getline(code.co_filename, traceback.tb_lineno)
        traceback = traceback.tb_next
    return line, source
