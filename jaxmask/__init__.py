"""Masks as values for JAX and Flax: `(x, mask)` in, `(y, mask)` out."""

from jaxmask import attention as attention
from jaxmask import audio as audio
from jaxmask import batching as batching
from jaxmask import conv as conv
from jaxmask import decoding as decoding
from jaxmask import leak as leak
from jaxmask import losses as losses
from jaxmask import masks as masks
from jaxmask import merge as merge
from jaxmask import metrics as metrics
from jaxmask import nn as nn
from jaxmask import norm as norm
from jaxmask import ops as ops
from jaxmask import packing as packing
from jaxmask import pool as pool
from jaxmask import ragged as ragged
from jaxmask import random as random
from jaxmask import recurrent as recurrent
from jaxmask import shape as shape
from jaxmask._check import MaskError as MaskError
from jaxmask.batching import BucketBatches as BucketBatches
from jaxmask.batching import Ragged as Ragged
from jaxmask.batching import bucket_batches as bucket_batches
from jaxmask.batching import bucket_stream as bucket_stream
from jaxmask.batching import pad_ragged as pad_ragged
from jaxmask.batching import pad_sequences as pad_sequences
from jaxmask.batching import unpad_sequences as unpad_sequences
from jaxmask.leak import LeakError as LeakError
from jaxmask.masks import Segments as Segments
from jaxmask.packing import Packed as Packed
from jaxmask.packing import pack_sequences as pack_sequences
from jaxmask.packing import pack_stream as pack_stream
from jaxmask.packing import unpack_sequences as unpack_sequences
from jaxmask.ragged import ragged_vmap as ragged_vmap


def __getattr__(name: str) -> object:
    """Import on demand the rooms that need an extra."""
    if name not in ("grain", "testing"):
        raise AttributeError(f"module 'jaxmask' has no attribute {name!r}")
    import importlib

    return importlib.import_module(f"jaxmask.{name}")
