"""Primitives that are deliberately refused on ragged axes, each with the reason.

A test compares this list and the rules with all primitives of JAX, so that a new one is noticed.
"""

from jaxmask.ragged._interpreter.interpret import REFUSED

_OF_DEVICES = "It moves data between devices: put the collective around the ragged function."
_OF_STATE = "It reads or writes state, or orders effects, which would see padded values."

REFUSED |= {
    **dict.fromkeys(
        ("all_gather", "all_to_all", "axis_index", "pmax", "pmin", "ppermute", "psum"), _OF_DEVICES
    ),
    **dict.fromkeys(("ragged_all_to_all", "xla_pmap"), _OF_DEVICES),
    **dict.fromkeys(("after_all", "create_token", "get", "swap", "empty2"), _OF_STATE),
    "approx_top_k": "What it omits depends on the padded size: use `jax.lax.top_k`.",
    "call": "It is internal to JAX, and no function of one row contains it.",
    "custom_lin": "It is a derivative being taken, and no function of one row contains it.",
    "select_and_scatter": "Windows with an operation of the caller's own are not supported.",
    "tridiagonal_solve": "It has no rule yet.",
}
