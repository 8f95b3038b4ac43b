"""One CPU, one GPU or many devices: each takes a share of the rows of a batch.

Of the parameters each has a copy; or, with `spread`, a share, and gathers the others for a step.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

ROWS = "rows"
Tree = TypeVar("Tree")


def all_devices() -> Mesh:
    """A mesh of one axis, the rows of the batch."""
    return jax.make_mesh((jax.device_count(),), (ROWS,), axis_types=(jax.sharding.AxisType.Auto,))


def deal_rows(batch: Tree, mesh: Mesh) -> Tree:
    """Put a share of the rows on each device, after empty rows that make the shares equal.

    An empty row is all padding, so it changes no loss, no gradient and no metric.
    """
    sharding = NamedSharding(mesh, PartitionSpec(ROWS))

    def deal(rows: np.ndarray) -> jax.Array:
        spare = -len(rows) % mesh.size
        empty = np.zeros((spare, *rows.shape[1:]), rows.dtype)
        return jax.device_put(np.concatenate([rows, empty]), sharding)

    return jax.tree.map(deal, batch)


def layout(tree: Tree, mesh: Mesh, *, spread: bool = False) -> Tree:
    """How parameters, or anything of their shapes, lie: a `PartitionSpec` for each array.

    To spread an array is to cut it along its longest axis that the devices divide; one that has
    none is copied.
    """

    def spec(leaf: jax.Array | jax.ShapeDtypeStruct) -> PartitionSpec:
        sizes = [size if spread and size % mesh.size == 0 else 0 for size in leaf.shape]
        if not any(sizes):
            return PartitionSpec()
        return PartitionSpec(*[None] * int(np.argmax(sizes)), ROWS)

    return jax.tree.map(spec, tree)


def lay_out(tree: Tree, mesh: Mesh, *, spread: bool = False) -> Tree:
    """Put parameters, or anything of their shapes, on the devices, or tell shapes where to lie."""

    def put(leaf: Any, spec: PartitionSpec) -> Any:
        sharding = NamedSharding(mesh, spec)
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.device_put(leaf, sharding)

    return jax.tree.map(put, tree, layout(tree, mesh, spread=spread))


def on_each_share(
    f: Callable[..., Any], mesh: Mesh, out: PartitionSpec, *, spread: bool = False
) -> Callable[..., Any]:
    """Let `f(batch, params, *copied)` see only the rows of its own device.

    Args:
      f: a function of a share of the batch, of the whole parameters, and of what is the same
        everywhere.
      mesh: the devices.
      out: how results lie: `PartitionSpec(ROWS)`, or `PartitionSpec()` if `f` makes all alike.
      spread: how the parameters lie. The gradient of what gathers them adds up and deals out.
    """

    def apply(batch: Any, params: Any, *copied: Any) -> Any:
        specs = layout(params, mesh, spread=spread)

        def on_a_device(batch: Any, params: Any, *copied: Any) -> Any:
            return f(batch, jax.tree.map(_gathered, params, specs), *copied)

        lies = (PartitionSpec(ROWS), specs, *[PartitionSpec()] * len(copied))
        # The CTC loss of Optax starts from zeros, which do not look like the share of one device.
        return jax.shard_map(on_a_device, mesh=mesh, in_specs=lies, out_specs=out, check_vma=False)(
            batch, params, *copied
        )

    return apply


def _gathered(share: jax.Array, spec: PartitionSpec) -> jax.Array:
    if not len(spec):
        return share
    return jax.lax.all_gather(share, ROWS, axis=len(spec) - 1, tiled=True)
