"""Convolution and pooling over time, with the mask that comes out of windows.

One rule, given in `conv1d`, decides which outputs are real: a row gives the values, and the number
of steps, that it gives alone without its padding.
"""

from jaxmask.conv._convolve import conv1d, conv2d, conv3d, depthwise, separable
from jaxmask.conv._pooling import (
    avg_pool1d,
    avg_pool2d,
    lp_pool1d,
    max_pool1d,
    max_pool2d,
    min_pool1d,
)
from jaxmask.conv._transposed import conv1d_transpose, conv2d_transpose

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "conv1d",
    "conv1d_transpose",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "depthwise",
    "lp_pool1d",
    "max_pool1d",
    "max_pool2d",
    "min_pool1d",
    "separable",
]
__dir__ = __all__.copy
