"""How the programs of tests are compiled: quickly, or as users compile them."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
from jax._src import traceback_util, xla_bridge
from jax._src.interpreters import mlir

# XLA ends the process at a flag that it does not know.
_HAS_EMITTERS_FLAG = jax.__version_info__ < (0, 11)
# Half of the time of a compile on CPU.
QUICK_FLAGS = "--xla_cpu_use_fusion_emitters=false" if _HAS_EMITTERS_FLAG else ""
# One LLVM module a program: these are small, and every worker has a core of its own.
_ONE_MODULE = "--xla_cpu_parallel_codegen_split_count=1" if _HAS_EMITTERS_FLAG else ""

# XLA's defaults, one for each thing that compiling quickly turns off.
_DEFAULTS = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
if _HAS_EMITTERS_FLAG:
    _DEFAULTS["xla_cpu_use_fusion_emitters"] = True

# As users have them but for what LLVM does, which decides no fusion; a third less to compile.
_FUSED = {**_DEFAULTS, "xla_backend_optimization_level": 0}

_way = ContextVar("way", default="quick")


def compile_on_one_core() -> None:
    """To be called before XLA first starts."""
    _add_flags(_ONE_MODULE)


def compile_quickly() -> None:
    """From here on XLA optimises little; to be called before it first starts."""
    jax.config.update("jax_disable_most_optimizations", True)
    _add_flags(QUICK_FLAGS)


def share_mlir_contexts() -> None:
    """Lower many programs in one MLIR context: making one takes longer than lowering `x + y`."""
    _Contexts.make = staticmethod(mlir.make_ir_context)
    mlir.make_ir_context = _contexts.shared


def spare_what_no_test_reads() -> None:
    """Keys of a cache on disk, lines of Python in programs, and each file looked at per error."""
    jax.config.update("jax_enable_compilation_cache", False)
    usual = mlir.source_info_to_location
    mlir.source_info_to_location = lambda ctx, primitive, name_stack, _: usual(
        ctx, primitive, name_stack, None
    )
    traceback_util.include_filename = functools.cache(traceback_util.include_filename)


class _Contexts(threading.local):
    """One for each thread, and a new one now and then, since it keeps every constant it saw."""

    make: Callable[[], Any]
    programs = 0
    context: Any = None

    def shared(self) -> Any:
        if self.programs % 1000 == 0:
            self.context = self.make()
        self.programs += 1
        return self.context


_contexts = _Contexts()


def _add_flags(flags: str) -> None:
    # XLA reads flags once: later ones would change nothing, and say nothing.
    assert not xla_bridge.backends_are_initialized(), "something compiled before the flags were set"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()


@contextlib.contextmanager
def compiled(way: str) -> Iterator[None]:
    """Within it, `compiler()` is that of `COMPILERS[way]`."""
    token = _way.set(way)
    try:
        yield
    finally:
        _way.reset(token)


def optimised(on: bool = True) -> contextlib.AbstractContextManager[None]:
    """Within it, `compiler()` is the compiler that users have."""
    return compiled("optimised" if on else "quick")


def is_on() -> bool:
    return _way.get() == "optimised"


def jit(function: Callable, **options: Any) -> Callable:
    """`jax.jit` with XLA's default optimisation, however other tests are compiled."""
    return jax.jit(function, compiler_options=_DEFAULTS, **options)


def _fused_jit(function: Callable, **options: Any) -> Callable:
    return jax.jit(function, compiler_options=_FUSED, **options)


COMPILERS = {"optimised": jit, "fused": _fused_jit, "quick": jax.jit}


def compiler() -> Callable:
    """The one that was chosen by `compiled` or `optimised`."""
    return COMPILERS[_way.get()]
