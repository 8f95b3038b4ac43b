"""Noise that padding cannot change.

Every draw is keyed by the row's id and, where steps differ, by the rank of the step among the row's
real steps, so a real step gets the same noise wherever the padding lies and however much of it
there is.
"""

from jaxmask.random.dropping import dropout as dropout
from jaxmask.random.dropping import spatial_dropout as spatial_dropout
from jaxmask.random.keys import step_keys as step_keys
from jaxmask.random.noise import gaussian_noise as gaussian_noise
from jaxmask.random.spans import feature_masking as feature_masking
from jaxmask.random.spans import time_masking as time_masking
