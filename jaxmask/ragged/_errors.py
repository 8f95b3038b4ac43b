"""What `ragged_vmap` refuses, and the texts that say how to go on."""

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
    """The function cannot be traced at a length that is not known.

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
    """A primitive of JAX meets a ragged axis and has no rule for it.

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
    """File, line and function of the user's own code that made an equation.

    What a function under `jit` was traced to is kept by JAX, with the lines of whoever called it
    first: then the line is that of the call (`callers`, the outermost first).

    Example:
      >>> equation = jax.make_jaxpr(lambda x: x + 1)(1.0).jaxpr.eqns[0]
      >>> "errors" in user_line(equation)
      True
    """
    for one in (equation, *reversed(callers)):
        traceback = one.source_info.traceback
        for frame in traceback.frames if traceback is not None else ():
            if not frame.file_name.startswith(_LIBRARIES):
                return f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
    return source_info_util.summarize(equation.source_info)


def unsupported(equation: Any, why: str, callers: Sequence[Any] = ()) -> UnsupportedPrimitiveError:
    """The error for one equation, with its shapes and the ways out.

    Example:
      >>> equation = jax.make_jaxpr(lambda x: x + 1)(1.0).jaxpr.eqns[0]
      >>> print(str(unsupported(equation, "It is an example.")).splitlines()[0])
      ragged_vmap: the primitive `add` is not supported on ragged axes. It is an example.
    """
    name = equation.primitive.name
    shapes = ", ".join(str(tuple(getattr(v.aval, "shape", ()))) for v in equation.invars)
    return UnsupportedPrimitiveError(
        f"ragged_vmap: the primitive `{name}` is not supported on ragged axes. {why}\n"
        f"It stands at {user_line(equation, callers)}, on operands of shapes {shapes}.\n"
        "Write this step with other functions, take it out of the function, or teach it: "
        f"`jm.ragged.register({name!r}, rule)`."
    )


HINTS: dict[str, str] = {
    "InconclusiveDimensionOperation": (
        "What this asks of the length has no one answer for all lengths. If it holds from some "
        "length on, say so: `min_length=` (rows that are shorter give 0 and False); if lengths are "
        "multiples of a number, `multiple_of=`. A loop over steps in Python is `jax.lax.scan`."
    ),
    "lengths": (
        " Arguments of one length share the mask object, or are one pytree argument: other masks "
        "are other lengths."
    ),
    "other": (
        "Python needs a number here, and the length of a row is only known when the program runs. "
        "Instead of `range(len(x))` or a loop over rows: `jax.lax.scan`, `jax.lax.fori_loop` or "
        "`jax.vmap`; instead of `np.arange`, `np.sqrt`, `float(n)` of a length: `jnp.arange`, "
        "`jnp.sqrt`, `jnp.float32(n)`; for `x[n // 2]`: `jax.lax.dynamic_index_in_dim`."
    ),
    "associative scan": (
        "Call it as `jax.lax.associative_scan` (an attribute, not a name that was imported "
        "earlier), or call `jm.ragged.associative_scan`."
    ),
}


# Functions of JAX that ask for a constant size: a word of the line or of the error, and a way out.
INSTEAD: dict[str, str] = {
    "searchsorted": "Count instead: `jnp.sum(a[:, None] < v, axis=0)` is `searchsorted(a, v)`. ",
    "interp": (
        "Count where to look, `k = jnp.clip(jnp.sum(xs < x), 1, xs.shape[0] - 1)`, and go between "
        "`ys[k - 1]` and `ys[k]`. "
    ),
    "permutation": (
        "Sort by random numbers: `x[jnp.argsort(jax.random.uniform(key, x.shape[:1]))]`. "
    ),
    "mod(1, ": (
        "Padding that wraps around, as of a circular convolution, is "
        "`jnp.concatenate([x[-1:], x, x[:1]])` and then a convolution without padding. "
    ),
}


def trace_error(error: Exception) -> RaggedTraceError:
    """What JAX raised at a symbolic length, with a way out.

    Example:
      >>> print(str(trace_error(TypeError("no integer"))).splitlines()[0])
      ragged_vmap: the function cannot be traced at a length that is not known:
    """
    text = str(error)
    if type(error).__name__ == "InconclusiveDimensionOperation":
        hint = HINTS["InconclusiveDimensionOperation"]
    else:
        hint = HINTS["associative scan" if "associative scan" in text else "other"]
    if "time_2" in text:
        hint += HINTS["lengths"]
    where, source = _line_of(error)
    hint = "".join(way for word, way in INSTEAD.items() if word in text + source) + hint
    return RaggedTraceError(
        "ragged_vmap: the function cannot be traced at a length that is not known:\n"
        f"{type(error).__name__}: {text.splitlines()[0] if text else ''}\n{where}{hint}"
    )


def state_error(error: Exception) -> RaggedTraceError:
    """A Flax module that was closed over would change its own state.

    Example:
      >>> print(str(state_error(ValueError("Cannot mutate RngCount"))).splitlines()[0])
      ragged_vmap: the function changes state of a module that it closes over:
    """
    return RaggedTraceError(
        "ragged_vmap: the function changes state of a module that it closes over:\n"
        f"{type(error).__name__}: {error}\n{_line_of(error)[0]}"
        "Give the module itself: `jm.ragged_vmap(module)`, or `jm.nn.RaggedVmap(module)`; or split "
        "and merge it inside the function."
    )


def _line_of(error: Exception) -> tuple[str, str]:
    """The last line of the user's own code, in words, and what stands there."""
    traceback, line, source = error.__traceback__, "", ""
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not code.co_filename.startswith(_LIBRARIES):
            line = f"It comes from {code.co_filename}:{traceback.tb_lineno} ({code.co_name}).\n"
            source = linecache.getline(code.co_filename, traceback.tb_lineno)
        traceback = traceback.tb_next
    return line, source
