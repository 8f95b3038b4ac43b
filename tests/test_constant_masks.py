"""A mask that a compiled function closes over: XLA must not compute with it while it compiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from tests import rows as tools
from tests.registry import REGISTRY

ROWS = np.arange(4, dtype=np.int32)
IDS = np.array([[1, 1, 2, 2, 0], [0, 1, 2, 0, 0]] * 2, np.int32)


def readers(function, *arguments):
    """The primitives that read a constant array of booleans, or of the ids of `Segments`."""
    program = jax.make_jaxpr(function)(*arguments)
    constants = [
        variable
        for variable, value in zip(program.jaxpr.constvars, program.consts, strict=True)
        if value.dtype == jnp.bool_ or (value.shape == IDS.shape and (value == IDS).all())
    ]
    return {
        equation.primitive.name
        for equation in program.jaxpr.eqns
        if any(variable is constant for variable in equation.invars for constant in constants)
    }


def counts_on_the_host(entry):
    """What a mask of NumPy says is worked out by NumPy, and enters the program ready."""
    return entry.name.startswith("ragged_vmap") or entry.name == "nn.RaggedVmap"


@pytest.mark.parametrize("on", [np.asarray, jnp.asarray], ids=["NumPy", "JAX"])
@pytest.mark.parametrize("entry", REGISTRY, ids=str)
def test_constant_masks_are_read_through_a_barrier(entry, on):
    if on is np.asarray and counts_on_the_host(entry):
        return
    masks = tools.masks_for(entry, "right")
    xs = tools.arguments(entry, masks, ROWS)
    masks = [on(mask) for mask in masks]
    read = readers(
        lambda params, xs, rows: entry.call(params, xs, masks, rows), entry.params, xs, ROWS
    )
    assert read == {"optimization_barrier"}


@pytest.mark.parametrize(
    "read",
    [
        jm.masks.from_paddings,
        jm.masks.from_attention_mask,
        jm.masks.from_segments,
        lambda ids: jm.masks.lengths(ids > 0),
        lambda ids: jm.masks.positions(jm.Segments(ids, 2)),
        lambda ids: jm.masks.as_bool(jm.Segments(ids, 2)),
        lambda ids: jm.pool.sum(jnp.ones((4, 5)), jm.Segments(ids, 2))[0],
    ],
)
def test_constants_that_become_masks(read):
    assert readers(lambda: read(IDS)) == {"optimization_barrier"}


def test_a_sentinel_is_compared_before_the_barrier():
    """A barrier on the values themselves would trip `jax_debug_nans` where nan is the sentinel."""
    assert "optimization_barrier" in str(jax.make_jaxpr(lambda: jm.masks.from_values(IDS))())
    x = jnp.array([[[1.0], [jnp.nan]]])
    with jax.debug_nans(True):
        mask = jm.masks.from_values(x, np.nan)
    assert mask.tolist() == [[True, False]]


def test_values_are_the_same():
    x, mask = jnp.arange(20.0).reshape(4, 5), IDS > 0
    given = jax.jit(lambda x, mask: jm.pool.mean(x, mask)[0])(x, mask)
    np.testing.assert_array_equal(jax.jit(lambda x: jm.pool.mean(x, mask)[0])(x), given)
    np.testing.assert_array_equal(jm.pool.mean(x, mask)[0], given)
