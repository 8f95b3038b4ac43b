"""The contenders: `recurrent.py` has layers in JAX, `pytorch.py` in PyTorch; the rest models."""
