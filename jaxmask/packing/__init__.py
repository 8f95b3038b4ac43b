"""Pack several sequences into each row, and unpack them, on the host, in NumPy."""

from jaxmask._host.packed import Packed, Pieces
from jaxmask.packing._pack import pack_sequences, pack_stream, unpack_sequences

__all__ = ["Packed", "Pieces", "pack_sequences", "pack_stream", "unpack_sequences"]
__dir__ = __all__.copy
