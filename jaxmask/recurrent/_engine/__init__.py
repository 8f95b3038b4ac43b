"""The engine behind `method="tiled"`, `"dense"` and `"pallas"`; `transforms.run` is its entry.

transforms   custom_vjp, custom_jvp and custom_vmap rules around the methods
tiled        `"tiled"`, out of the next four
scheduling   which chunk runs when
buffers      where it keeps what the backward needs
forward      its forward pass
backward     its backward pass
dense        `"dense"`: a scan with a hand-written backward, also that of `"pallas"`
pallas       the forward kernel of `"pallas"`
kinds        the arithmetic of a step: LSTM, GRU, simple
variants     the same with other activations, `cell_clip` and peepholes
"""
