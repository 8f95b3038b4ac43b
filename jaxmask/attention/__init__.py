"""Attention over real steps: dot-product, additive, positions, and a cache for streaming."""

from jaxmask.attention._additive import AdditiveWeights, additive
from jaxmask.attention._cache import KVCache, attend_cached, empty_cache, extend_cache
from jaxmask.attention._choice import Choice, explain
from jaxmask.attention._dot_product import attend
from jaxmask.attention._positions import Alibi, PositionBias, relative_buckets, rotary, sinusoids

__all__ = [
    "AdditiveWeights",
    "Alibi",
    "Choice",
    "KVCache",
    "PositionBias",
    "additive",
    "attend",
    "attend_cached",
    "empty_cache",
    "explain",
    "extend_cache",
    "relative_buckets",
    "rotary",
    "sinusoids",
]
__dir__ = __all__.copy
