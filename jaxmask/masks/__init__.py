"""Make, combine and ask about masks.

A mask is boolean, `[batch, time]`, True where the step is real. Everything else that the field
calls a mask is turned into that here, once: lengths, paddings (1 = pad), segment ids, row
offsets, 0/1 attention masks, sentinel values.
"""

from jaxmask._types import Segments as Segments
from jaxmask.masks.ask import expand as expand
from jaxmask.masks.ask import intersect as intersect
from jaxmask.masks.ask import is_right_padded as is_right_padded
from jaxmask.masks.ask import lengths as lengths
from jaxmask.masks.ask import of_each_segment as of_each_segment
from jaxmask.masks.ask import positions as positions
from jaxmask.masks.ask import rows as rows
from jaxmask.masks.ask import select_in as select_in
from jaxmask.masks.ask import steps as steps
from jaxmask.masks.attention import AttentionPredicate as AttentionPredicate
from jaxmask.masks.attention import both as both
from jaxmask.masks.attention import causal as causal
from jaxmask.masks.attention import either as either
from jaxmask.masks.attention import same_segment as same_segment
from jaxmask.masks.attention import to_attention_mask as to_attention_mask
from jaxmask.masks.attention import window as window
from jaxmask.masks.convert import differs_from as differs_from
from jaxmask.masks.convert import from_attention_mask as from_attention_mask
from jaxmask.masks.convert import from_lengths as from_lengths
from jaxmask.masks.convert import from_offsets as from_offsets
from jaxmask.masks.convert import from_paddings as from_paddings
from jaxmask.masks.convert import from_segments as from_segments
from jaxmask.masks.convert import from_values as from_values
from jaxmask.masks.convert import to_paddings as to_paddings
