"""How the programs of tests are compiled: quickly."""

import jax

# Half of the time of a compile on CPU. XLA ends the process at a flag that it does not know.
_HAS_EMITTERS_FLAG = jax.__version_info__ < (0, 11)
QUICK = "--xla_cpu_use_fusion_emitters=false" if _HAS_EMITTERS_FLAG else ""


def with_quick(flags: str) -> str:
    """`flags` for `XLA_FLAGS`, and what compiles quickly."""
    return f"{flags} {QUICK}".strip()
