"""Masks as values for JAX and Flax: `(x, mask)` in, `(y, mask)` out.

Errors come when a function is traced, before any arithmetic. Where a docstring says nothing else, a
wrong dtype is a `TypeError`, a wrong shape, size or option a `ValueError`, and a mask that does not
belong to its array, or that the function cannot handle, a `MaskError` (which is a `ValueError`). A
module checks its options when it is built, and raises what the function below it raises when it is
called.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxmask import (
        attention,
        audio,
        batching,
        conv,
        decoding,
        interop,
        leak,
        losses,
        masks,
        merge,
        metrics,
        nn,
        norm,
        ops,
        packing,
        pool,
        ragged,
        random,
        recurrent,
        report,
        shape,
        skip,
    )
    from jaxmask import grain as grain
    from jaxmask import testing as testing
    from jaxmask._check import MaskError
    from jaxmask.batching import (
        BucketBatches,
        Ragged,
        bucket_batches,
        bucket_stream,
        pad_ragged,
        pad_sequences,
        unpad_sequences,
    )
    from jaxmask.leak import LeakError
    from jaxmask.masks import Segments
    from jaxmask.packing import Packed, pack_sequences, pack_stream, unpack_sequences
    from jaxmask.ragged import ragged_vmap
    from jaxmask.skip import skip_padding

# Modules load when they are first used, so that `import jaxmask` is quick.
_HOMES = {
    "BucketBatches": "batching",
    "LeakError": "leak",
    "MaskError": "_check",
    "Packed": "packing",
    "Ragged": "batching",
    "Segments": "masks",
    "bucket_batches": "batching",
    "bucket_stream": "batching",
    "pack_sequences": "packing",
    "pack_stream": "packing",
    "pad_ragged": "batching",
    "pad_sequences": "batching",
    "ragged_vmap": "ragged",
    "skip_padding": "skip",
    "unpack_sequences": "packing",
    "unpad_sequences": "batching",
}

__all__ = [
    "BucketBatches",
    "LeakError",
    "MaskError",
    "Packed",
    "Ragged",
    "Segments",
    "attention",
    "audio",
    "batching",
    "bucket_batches",
    "bucket_stream",
    "conv",
    "decoding",
    "interop",
    "leak",
    "losses",
    "masks",
    "merge",
    "metrics",
    "nn",
    "norm",
    "ops",
    "pack_sequences",
    "pack_stream",
    "packing",
    "pad_ragged",
    "pad_sequences",
    "pool",
    "ragged",
    "ragged_vmap",
    "random",
    "recurrent",
    "report",
    "shape",
    "skip",
    "skip_padding",
    "unpack_sequences",
    "unpad_sequences",
]
_WITH_EXTRAS = ("grain", "testing")  # not for `from jaxmask import *`: they need extras


def __getattr__(name: str) -> object:
    value: object
    if name == "__version__":
        value = importlib.metadata.version("jaxmask")
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"jaxmask.{_HOMES[name]}"), name)
    elif name in (*__all__, *_WITH_EXTRAS):
        value = importlib.import_module(f"jaxmask.{name}")
    else:
        raise AttributeError(f"module 'jaxmask' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, *_WITH_EXTRAS]
