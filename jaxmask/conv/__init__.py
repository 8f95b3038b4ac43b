"""Convolution and pooling over time, with the mask that comes out of windows.

Which output is real is decided by one rule for every function here, see `conv1d`: the result of a
row is the result of that row alone, without its padding, and so is its number of steps.
"""

from jaxmask.conv.convolve import conv1d as conv1d
from jaxmask.conv.convolve import conv2d as conv2d
from jaxmask.conv.convolve import depthwise as depthwise
from jaxmask.conv.pooling import avg_pool1d as avg_pool1d
from jaxmask.conv.pooling import avg_pool2d as avg_pool2d
from jaxmask.conv.pooling import lp_pool1d as lp_pool1d
from jaxmask.conv.pooling import max_pool1d as max_pool1d
from jaxmask.conv.pooling import max_pool2d as max_pool2d
from jaxmask.conv.pooling import min_pool1d as min_pool1d
from jaxmask.conv.sampling import downsample as downsample
from jaxmask.conv.transposed import transpose as transpose
