"""What `batching`, `packing` and `grain` share: NumPy arrays on the host."""
