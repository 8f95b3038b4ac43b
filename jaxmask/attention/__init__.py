"""Attention over real steps: dot-product, additive, positions, and a cache for streaming."""

from jaxmask.attention.additive import AdditiveWeights as AdditiveWeights
from jaxmask.attention.additive import additive as additive
from jaxmask.attention.cache import KVCache as KVCache
from jaxmask.attention.cache import attend_cached as attend_cached
from jaxmask.attention.cache import empty_cache as empty_cache
from jaxmask.attention.dot_product import attend as attend
from jaxmask.attention.positions import rotary as rotary
from jaxmask.attention.positions import sinusoids as sinusoids
