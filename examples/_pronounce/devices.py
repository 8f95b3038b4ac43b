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


def shard_rows(batch: Tree, mesh: Mesh) -> Tree:
    """Shard the rows over the devices, padded with empty rows to shards of equal size.

    An empty row is all padding, so it changes no loss, no gradient and no metric.
    """
    sharding = NamedSharding(mesh, PartitionSpec(ROWS))

    def shard(rows: np.ndarray) -> jax.Array:
        spare = -len(rows) % mesh.size
        empty = np.zeros((spare, *rows.shape[1:]), rows.dtype)
        return jax.device_put(np.concatenate([rows, empty]), sharding)

    return jax.tree.map(shard, batch)


def layout(tree: Tree, mesh: Mesh, *, spread: bool = False) -> Tree:
    """The sharding of parameters, or anything of their shapes: a `PartitionSpec` for each array.

    With `spread`, an array is sharded along its longest axis that the devices divide, and
    replicated if it has none.
    """

    def spec(leaf: jax.Array | jax.ShapeDtypeStruct) -> PartitionSpec:
        sizes = [size if spread and size % mesh.size == 0 else 0 for size in leaf.shape]
        if not any(sizes):
            return PartitionSpec()
        return PartitionSpec(*[None] * int(np.argmax(sizes)), ROWS)

    return jax.tree.map(spec, tree)


def lay_out(tree: Tree, mesh: Mesh, *, spread: bool = False) -> Tree:
    """Put parameters, or anything of their shapes, on the devices; shapes get their sharding."""

    def put(leaf: Any, spec: PartitionSpec) -> Any:
        sharding = NamedSharding(mesh, spec)
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.device_put(leaf, sharding)

    return jax.tree.map(put, tree, layout(tree, mesh, spread=spread))


def on_each_device(
    f: Callable[..., Any], mesh: Mesh, out: PartitionSpec, *, spread: bool = False
) -> Callable[..., Any]:
    """Run `f(batch, params, *copied)` on each device, with the rows of that device alone.

    Args:
      f: a function of one shard of the batch, of the whole parameters, and of what is the same
        on all devices.
      mesh: the devices.
      out: sharding of the results: `PartitionSpec(ROWS)`, or `PartitionSpec()` where all are equal.
      spread: shard the parameters; the gradient of gathering them is a reduce-scatter.
    """

    def apply(batch: Any, params: Any, *copied: Any) -> Any:
        specs = layout(params, mesh, spread=spread)

        def on_a_device(batch: Any, params: Any, *copied: Any) -> Any:
            return f(batch, jax.tree.map(_gathered, params, specs), *copied)

        lies = (PartitionSpec(ROWS), specs, *[PartitionSpec()] * len(copied))
        # The CTC loss of Optax starts from zeros, which do not look like the shard of one device.
        return jax.shard_map(on_a_device, mesh=mesh, in_specs=lies, out_specs=out, check_vma=False)(
            batch, params, *copied
        )

    return apply


def _gathered(shard: jax.Array, spec: PartitionSpec) -> jax.Array:
    if not len(spec):
        return shard
    return jax.lax.all_gather(shard, ROWS, axis=len(spec) - 1, tiled=True)
