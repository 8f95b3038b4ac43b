"""Pad, bucket and pack in pipelines of Grain, which can be checkpointed and resumed exactly.

    dataset = grain.MapDataset.source(records).shuffle(seed=0)[process::processes]
    dataset = jaxmask.grain.Pack(dataset, row_length=512, batch_size=32)

A record is one sequence, or a dict that holds it under `key`; `keep` names other entries that a
batch keeps, one value for each record. Needs `grain`: `pip install jaxmask[grain]`.
"""

try:
    import grain as _grain  # noqa: F401
except ImportError as error:
    raise ImportError(
        "jaxmask.grain needs Grain: `pip install jaxmask[grain]`. Without it, `jm.pack_stream`, "
        "`jm.bucket_stream` and `jm.bucket_batches` do the same for NumPy."
    ) from error

from jaxmask.grain._padding import pad
from jaxmask.grain._sources import batches, rows
from jaxmask.grain._streams import Bucket, Pack

__all__ = ["Bucket", "Pack", "batches", "pad", "rows"]
__dir__ = __all__.copy
