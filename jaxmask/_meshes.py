"""Which arrays are spread over devices, as far as tracing can tell."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def spreads_rows(x: Any) -> bool:
    """Whether rows lie on several devices outside `shard_map`: to move one gathers all of them."""
    mesh = jax.sharding.get_abstract_mesh()
    if set(mesh.axis_names) - set(mesh.manual_axes):
        return True
    if over_explicit(x):
        return True
    is_known = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
    return is_known and len(x.devices()) > 1


def over_explicit(x: Any) -> bool:
    """Whether an array is spread over explicit axes of a mesh."""
    return isinstance(x, jax.Array) and _explicit([x]) is not None


def spread_like(likes: Sequence[Any], f: Callable[..., Any], *args: Any) -> Any:
    """`f(*args)`, spread as the first of `likes` that is over explicit axes of a mesh, if one is.

    There JAX wants to be told how the result of each gather is spread. `f` closes over no array.
    """
    sharding = _explicit(likes)
    if sharding is None:
        return f(*args)
    return jax.sharding.auto_axes(f, out_sharding=sharding)(*args)


def rows_like(like: Any, tree: T) -> T:
    """Arrays `[batch, ...]`, their rows spread as those of `like` if its mesh has explicit axes."""
    sharding = _explicit([like])
    if sharding is None:
        return tree

    def placed(x: Any) -> Any:
        if not x.ndim:
            return x
        spec = jax.sharding.PartitionSpec(sharding.spec[0], *jax.typeof(x).sharding.spec[1:])
        return jax.sharding.reshard(x, jax.sharding.NamedSharding(sharding.mesh, spec))

    return jax.tree.map(placed, tree)


def over_explicit_axes(f: F, *, by_row: bool = True) -> F:
    """`f`, also of arrays that are spread over explicit axes of a mesh; it closes over no array.

    JAX wants to be told there how the result of each gather is spread. Its results are spread as
    the first such array, along the axes in front that both have; or they stand on each device,
    where they are not `by_row`.
    """

    @functools.wraps(f)
    def spread(*args: Any, **options: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, options))
        arrays = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)}
        sharding = _explicit(arrays.values())
        # A function may close over arrays, which could not enter.
        if sharding is None or any(getattr(leaf, "__closure__", None) for leaf in leaves):
            return f(*args, **options)

        def of_arrays(arrays: dict[int, Any]) -> Any:
            args, options = jax.tree.unflatten(
                tree, [arrays.get(i, x) for i, x in enumerate(leaves)]
            )
            return f(*args, **options)

        like = next(x for x in arrays.values() if jax.typeof(x).sharding == sharding)
        shapes = {i: jax.ShapeDtypeStruct(x.shape, x.dtype) for i, x in arrays.items()}
        along = functools.partial(_along, like.shape if by_row else (), sharding)
        spreads = jax.tree.map(along, jax.eval_shape(of_arrays, shapes))
        return jax.sharding.auto_axes(of_arrays, out_sharding=spreads)(arrays)

    return spread  # type: ignore[return-value]


def _explicit(arrays: Iterable[Any]) -> Any:
    """The first sharding over explicit axes that says more than that all is everywhere."""
    each = (jax.typeof(x).sharding for x in arrays)
    return next((s for s in each if getattr(s.mesh, "explicit_axes", ()) and any(s.spec)), None)


def _along(shape: tuple[int, ...], sharding: Any, x: Any) -> Any:
    """The sharding of `x` along the axes in front that it shares with an array of this shape."""
    axes = 0
    while axes < min(len(shape), x.ndim) and shape[axes] == x.shape[axes]:
        axes += 1
    spec = jax.sharding.PartitionSpec(*sharding.spec[:axes])
    return jax.sharding.NamedSharding(sharding.mesh, spec)
