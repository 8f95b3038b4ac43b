"""Programs compiled as users compile them, within a process that compiles most tests quickly."""

import functools

import jax

from tests import flags

# What `jax_disable_most_optimizations` and the flags of the tests turn off, turned on again.
OPTIONS = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
if flags.QUICK:
    OPTIONS["xla_cpu_use_fusion_emitters"] = True

jit = functools.partial(jax.jit, compiler_options=OPTIONS)
