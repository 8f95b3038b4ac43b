"""From samples to frames, spectra and features, and back: `(x, mask) -> (y, mask)`.

Samples are `[batch, time]`, one mask bit each; frames are windows over them, so their masks follow
the rule of `jaxmask.conv.conv1d`, and a row has the frames that it has without its padding.
Mask class: contiguous. Holes are physical, as there: a missing sample keeps its place and counts
as 0, and by default a frame that holds one is not real.
"""

from jaxmask.audio._audio import frames, log_mel, mel_filterbank, stft
from jaxmask.audio._features import deltas, mfcc
from jaxmask.audio._inverse import griffin_lim, istft

__all__ = ["deltas", "frames", "griffin_lim", "istft", "log_mel", "mel_filterbank", "mfcc", "stft"]
__dir__ = __all__.copy
