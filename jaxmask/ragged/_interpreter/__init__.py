"""Tracing at symbolic lengths and running the program: all that follows JAX's internals."""
