"""Benchmarks: each compares outputs and gradients with every rival before it times anything."""
