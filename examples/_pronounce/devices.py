"""One CPU, one GPU or many devices: rows of a batch are dealt out over whatever there is."""

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


def copy_to_each(tree: Tree, mesh: Mesh) -> Tree:
    """Put the whole tree on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shapes_on_each(tree: Tree, mesh: Mesh) -> Tree:
    """What `copy_to_each` would give, for a tree of shapes."""
    sharding = NamedSharding(mesh, PartitionSpec())

    def placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(placed, tree)


def on_each_share(f: Callable[..., Any], mesh: Mesh, out: PartitionSpec) -> Callable[..., Any]:
    """Let `f(batch, *copied)` see only the rows of its own device.

    Args:
      f: a function of a share of the batch and of what is the same everywhere.
      mesh: the devices.
      out: how results lie: `PartitionSpec(ROWS)`, or `PartitionSpec()` if `f` makes all alike.
    """

    def apply(batch: Any, *copied: Any) -> Any:
        specs = (PartitionSpec(ROWS), *[PartitionSpec()] * len(copied))
        # Recurrences start from zeros, which do not look like the share of one device.
        return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)(
            batch, *copied
        )

    return apply
