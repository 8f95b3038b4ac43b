"""The engine behind `method="tiled"`, `"dense"` and `"pallas"`; `transforms.run` is its entry.

transforms   custom_vjp, custom_jvp and custom_vmap rules around the methods
tiled        `"tiled"`: scheduling (which chunk runs when), buffers, forward and backward
dense        `"dense"`: a scan with a hand-written backward; its forward by a kernel for `"pallas"`
kinds        the arithmetic of a step: LSTM, GRU, simple
"""
