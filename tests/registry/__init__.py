"""Every public masked function, one file a family.

A family names its entries, and the public names that are no masked functions, each with its reason
and the test that covers it.
"""

from tests.registry import (
    attention,
    audio,
    conv,
    decoding,
    linear,
    losses,
    merge,
    metrics,
    modules,
    norm,
    pool_ops_shape,
    ragged,
    random,
    recurrent,
    skip,
)
from tests.registry.entry import Entry as Entry
from tests.registry.entry import Input as Input

FAMILIES = (
    attention,
    audio,
    conv,
    decoding,
    linear,
    losses,
    merge,
    metrics,
    modules,
    norm,
    pool_ops_shape,
    ragged,
    random,
    recurrent,
    skip,
)
REGISTRY: list[Entry] = [entry for family in FAMILIES for entry in family.ENTRIES]
NOT_MASKED_FUNCTIONS: dict[str, str] = {
    name: reason for family in FAMILIES for name, reason in family.NOT_MASKED.items()
}
