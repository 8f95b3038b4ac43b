"""Ragged sequences to padded batches and back, on the host, in NumPy."""

from jaxmask._host.ragged import Ragged
from jaxmask._host.stream import BatchStream
from jaxmask.batching._bucket_stream import bucket_stream
from jaxmask.batching._buckets import BucketBatches, BucketIterator, bucket_batches
from jaxmask.batching._padding import pad_ragged, pad_sequences, unpad_sequences

__all__ = [
    "BatchStream",
    "BucketBatches",
    "BucketIterator",
    "Ragged",
    "bucket_batches",
    "bucket_stream",
    "pad_ragged",
    "pad_sequences",
    "unpad_sequences",
]
__dir__ = __all__.copy
