"""From ragged sequences to rectangles and back, on the host, in NumPy."""

from jaxmask.batching.bucket_stream import bucket_stream as bucket_stream
from jaxmask.batching.buckets import BucketBatches as BucketBatches
from jaxmask.batching.buckets import BucketIterator as BucketIterator
from jaxmask.batching.buckets import bucket_batches as bucket_batches
from jaxmask.batching.padding import pad_ragged as pad_ragged
from jaxmask.batching.padding import pad_sequences as pad_sequences
from jaxmask.batching.padding import unpad_sequences as unpad_sequences
from jaxmask.batching.ragged import Ragged as Ragged
from jaxmask.batching.stream import Windowed as Windowed
