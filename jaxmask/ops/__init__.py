"""Masked primitives that are safe against nan, inf and empty rows.

All of them act on the real steps of each row only, wherever the padding lies (mask class: any),
and keep the sequences of `Segments` apart. What stands in the padding of a result is 0.
"""

from jaxmask.ops.dtypes import accumulator as accumulator
from jaxmask.ops.dtypes import of_mean as of_mean
from jaxmask.ops.dtypes import of_sum as of_sum
from jaxmask.ops.extreme import extreme as extreme
from jaxmask.ops.filling import each_step as each_step
from jaxmask.ops.filling import fill as fill
from jaxmask.ops.filling import fill_real as fill_real
from jaxmask.ops.moving import compact as compact
from jaxmask.ops.moving import flip as flip
from jaxmask.ops.moving import shift as shift
from jaxmask.ops.over_time import cumsum as cumsum
from jaxmask.ops.over_time import log_softmax as log_softmax
from jaxmask.ops.over_time import logsumexp as logsumexp
from jaxmask.ops.over_time import softmax as softmax
from jaxmask.ops.segments import segments_apart as segments_apart
