"""Which arrays are spread over devices, as far as tracing can tell."""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def spreads_rows(x: Any) -> bool:
    """Whether rows lie on several devices outside `shard_map`: to move one gathers all of them."""
    mesh = jax.sharding.get_abstract_mesh()
    if set(mesh.axis_names) - set(mesh.manual_axes):
        return True
    is_known = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
    return is_known and len(x.devices()) > 1


def spread_like(likes: Sequence[Any], f: Callable[..., Any], *args: Any) -> Any:
    """`f(*args)`, spread as the first of `likes` whose mesh has explicit axes, if one has.

    There JAX wants to be told how the result of each gather is spread. `f` closes over no array.
    """
    for like in likes:
        sharding = jax.typeof(like).sharding
        if getattr(sharding.mesh, "explicit_axes", ()):
            return jax.sharding.auto_axes(f, out_sharding=sharding)(*args)
    return f(*args)
