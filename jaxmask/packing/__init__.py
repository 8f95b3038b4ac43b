"""Several sequences in a row, on the host, in NumPy: plan, pack, unpack."""

from jaxmask.packing.pack import pack_sequences as pack_sequences
from jaxmask.packing.packed import Packed as Packed
from jaxmask.packing.packed import Pieces as Pieces
from jaxmask.packing.packed import unpack_sequences as unpack_sequences
from jaxmask.packing.stream import pack_stream as pack_stream
