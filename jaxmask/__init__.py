"""Masks as values for JAX and Flax: `(x, mask)` in, `(y, mask)` out."""

from jaxmask import masks as masks
from jaxmask import ops as ops
from jaxmask import pool as pool
from jaxmask import random as random
from jaxmask import recurrent as recurrent
from jaxmask import shape as shape
from jaxmask._check import MaskError as MaskError
from jaxmask.masks import Segments as Segments
