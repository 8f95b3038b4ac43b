"""Make masks, combine them and query them.

A mask is boolean, `[batch, time]`, True where the step is real. The functions here convert to it
from other conventions: lengths, paddings (1 = pad), segment ids, row offsets, 0/1 attention masks,
sentinel values.
"""

from jaxmask._mask_ops import as_bool
from jaxmask._types import Segments
from jaxmask.masks._ask import is_right_padded, lengths, positions, rows
from jaxmask.masks._attention import (
    AttentionPredicate,
    both,
    causal,
    either,
    same_segment,
    to_attention_mask,
    window,
)
from jaxmask.masks._convert import (
    from_attention_mask,
    from_lengths,
    from_offsets,
    from_paddings,
    from_segments,
    from_values,
    to_paddings,
)

__all__ = [
    "AttentionPredicate",
    "Segments",
    "as_bool",
    "both",
    "causal",
    "either",
    "from_attention_mask",
    "from_lengths",
    "from_offsets",
    "from_paddings",
    "from_segments",
    "from_values",
    "is_right_padded",
    "lengths",
    "positions",
    "rows",
    "same_segment",
    "to_attention_mask",
    "to_paddings",
    "window",
]
__dir__ = __all__.copy
