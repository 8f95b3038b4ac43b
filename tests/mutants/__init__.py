"""Layers that are wrong on purpose, and plain right ones: what the laws and the check must tell."""
