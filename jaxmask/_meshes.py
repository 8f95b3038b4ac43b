"""Which arrays are spread over devices, as far as tracing can tell."""

from typing import Any

import jax


def spreads_rows(x: Any) -> bool:
    """Whether rows lie on several devices outside `shard_map`: to move one gathers all of them."""
    mesh = jax.sharding.get_abstract_mesh()
    if set(mesh.axis_names) - set(mesh.manual_axes):
        return True
    is_known = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
    return is_known and len(x.devices()) > 1
