"""`skip_padding(pack=...)` equals the function itself, on as many packed rows as are needed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

import jaxmask as jm
from jaxmask.skip._places import place
from tests.test_skip_padding import (
    BATCH,
    CASES,
    MASK,
    SEGMENTS,
    TIME,
    WEIGHTS,
    X,
    assert_close,
    closed_over,
    drop,
    loss_of,
    loss_with_weights,
    make_stack,
    of_the_time_axis,
    on_mesh,
    sequence,
    strided,
    weighted,
)

PACKED = ["by row", "by step", "a pytree", "integers", "a convolution", "weights of steps"]


def no_carry(x, mask, weights):
    return jm.recurrent.lstm(x, mask, weights)[1]


def steps_seen(seen):
    """A function that says how many real steps each of its runs has."""

    def f(x, mask):
        zero = jax.pure_callback(
            lambda ids: (seen.append((ids > 0).sum().item()), np.float32(0))[1],
            jax.ShapeDtypeStruct((), np.float32),
            mask.ids if isinstance(mask, jm.Segments) else mask,
        )
        return jm.ops.fill(x, mask)[0] + zero, mask

    return f


def values_and_gradients(f, mask, x, rest):
    return jax.jit(jax.value_and_grad(loss_of(f, mask), (0, 1), has_aux=True))(x, rest)


@pytest.mark.parametrize("case", [*PACKED, "weights"])
def test_values_and_gradients_are_those_of_the_function(case):
    f, x, mask, rest, kinds = CASES[case]
    f = no_carry if case == "weights" else f
    ours = values_and_gradients(jm.skip_padding(f, rest=kinds, pack=3), mask, x, rest)
    assert_close(ours, values_and_gradients(f, mask, x, rest))


@pytest.mark.parametrize("pack", [1, 10])  # 3 of 10 chunks are kept, and the only one
def test_full_rows_are_as_right_as_short_ones(pack):
    x, mask = jnp.nan_to_num(X), np.ones_like(MASK)
    ours = values_and_gradients(jm.skip_padding(no_carry, pack=pack), mask, x, (WEIGHTS,))
    assert_close(ours, values_and_gradients(no_carry, mask, x, (WEIGHTS,)))


def test_short_rows_share_a_packed_row():
    seen = []
    y, mask = jax.jit(jm.skip_padding(steps_seen(seen), pack=1))(X, MASK)
    assert sorted(seen) == [8, 24, 24, 24]  # 24, 17 + 5 + 2, 11 + 9 + 3 + 1, 8
    assert_close((y, mask), jm.ops.fill(X, MASK))


def test_a_packed_row_holds_eight_rows():
    seen = []
    mask = np.zeros((20, TIME), bool)
    mask[:, 0] = True
    jax.block_until_ready(
        jax.jit(jm.skip_padding(steps_seen(seen), pack=1))(X[:1].repeat(20, 0), mask)
    )
    assert sorted(seen) == [4, 8, 8]


def test_a_batch_without_a_real_step_runs_nothing():
    seen = []
    y, mask = jax.jit(jm.skip_padding(steps_seen(seen), pack=2))(X, np.zeros_like(MASK))
    assert not seen
    assert not y.any()
    assert not mask.any()


def test_empty_rows_keep_their_value_where_rows_are_pooled():
    def shifted(x, mask):
        y, mask = jm.pool.mean(x, mask)
        return y + 1, mask

    ours = jax.jit(jm.skip_padding(shifted, pack=2))(X, np.zeros_like(MASK))
    assert_close(ours, (np.ones((BATCH, 4), np.float32), np.zeros(BATCH, bool)))


def test_holes_and_left_padding():
    holes = np.random.default_rng(2).permuted(MASK, axis=1)
    assert_close(
        jax.jit(jm.skip_padding(jm.ops.softmax, pack=2))(X, holes), jm.ops.softmax(X, holes)
    )
    seen = []
    g = jm.skip_padding(steps_seen(seen), pack=1, compact=True)
    assert_close(jax.jit(g)(X[:, ::-1], MASK[:, ::-1]), jm.ops.fill(X[:, ::-1], MASK[:, ::-1]))
    assert sorted(seen) == [8, 24, 24, 24]


# ------------------------------------------------------------------------------- transforms


def test_second_derivatives_vmap_and_what_is_closed_over():
    g = jm.skip_padding(jm.ops.softmax, pack=2)
    scales = np.array([0.5, 1.3], np.float32)

    def slope(f, scale):
        return jax.grad(lambda s: loss_of(f, MASK)(s * jnp.nan_to_num(X), ())[0])(scale)

    ours, theirs = (
        jax.jit(jax.vmap(jax.value_and_grad(lambda s, f=f: slope(f, s))))(scales)
        for f in (g, jm.ops.softmax)
    )
    assert_close(ours, theirs, atol=1e-4)
    packed = jax.jit(
        jax.grad(closed_over(lambda f: jm.skip_padding(lambda x, m: f(x, m)[1], pack=2)))
    )
    plain = jax.jit(jax.grad(closed_over(lambda f: lambda x, m: f(x, m)[1])))
    assert_close(packed(WEIGHTS), plain(WEIGHTS))


def test_each_device_packs_its_own_rows():
    ours = jax.jit(jax.value_and_grad(on_mesh(jm.skip_padding(sequence, pack=2))))(WEIGHTS)
    assert_close(ours, jax.jit(jax.value_and_grad(loss_with_weights(sequence)))(WEIGHTS))


def test_it_exports():
    known = export.export(jax.jit(jm.skip_padding(jm.ops.softmax, pack=2)))(X, MASK)
    assert_close(known.call(X, MASK), jm.ops.softmax(X, MASK))


def test_no_tracer_outlives_its_trace():
    def loss(weights):
        return loss_of(jm.skip_padding(no_carry, pack=2), MASK)(X, (weights,))[0]

    with jax.checking_leaks():
        jax.make_jaxpr(jax.grad(loss))(WEIGHTS)


def of_a_loop(x, mask, weights):
    """Weights that are read in a call, twice, beside their product, and by an operand of none."""
    w, u, b = weights

    def cell(carry, x):
        h, count = carry
        h = jnp.tanh(jax.jit(jnp.dot)(x, w) + jnp.dot(h, u) + jnp.dot(h * h, u) - b * w[0, 0])
        return (h, count + 1), h @ u / (1 + count[:, None])

    start = jnp.zeros((len(x), len(u))), jnp.zeros(len(x), jnp.int32)
    fresh = jax.tree.map(jnp.zeros_like, start)
    return jm.recurrent.scan(cell, x, mask, start, reset_carry=fresh, reverse=True)[1]


def loop_weights(features):
    draw = np.random.default_rng(0)
    shapes = (X.shape[2], features), (features, features), (features,)
    return tuple(draw.normal(size=shape).astype(np.float32) / 3 for shape in shapes)


@pytest.mark.parametrize("options", [{"pack": 3}, {"groups": 4, "lengths": 2}])
def test_gradients_of_weights_in_a_loop(options):
    rest = (loop_weights(9),)
    ours = values_and_gradients(jm.skip_padding(of_a_loop, **options), MASK, X, rest)
    assert_close(ours, values_and_gradients(of_a_loop, MASK, X, rest))


def test_a_loop_carries_no_gradient_of_a_weight():
    def gradient(weights):
        return loss_of(jm.skip_padding(of_a_loop, pack=3), MASK)(X, (weights,))[0]

    program = str(jax.make_jaxpr(jax.grad(gradient))(loop_weights(9)))
    assert "f32[9,9] = add_any" not in program


# ------------------------------------------------------------------------- noise and modules


def test_noise_keeps_the_ids_of_rows():
    g = jax.jit(jm.skip_padding(drop, pack=2))
    assert_close(g(X, MASK), drop(X, MASK, np.arange(BATCH)))
    ids = np.stack([np.arange(BATCH), np.arange(BATCH)[::-1]], 1) + 7
    given = jm.skip_padding(drop, pack=2, rest="row_ids")
    assert_close(given(X, MASK, ids), drop(X, MASK, ids))


@pytest.mark.parametrize("method", ["reference", "blocks"])
def test_dropout_of_attention_keeps_the_ids_of_rows(method):
    def attend(x, mask, row_ids):
        x, mask = jm.ops.fill(x, mask)
        heads = x[:, :, None]
        options = {"dropout_rate": 0.5, "key": jax.random.key(0), "row_ids": row_ids}
        y, mask = jm.attention.attend(heads, mask, heads, heads, mask, method=method, **options)
        return y[:, :, 0], mask

    g = jax.jit(jm.skip_padding(attend, pack=2))
    assert_close(g(X, MASK), attend(X, MASK, np.arange(BATCH)))


def test_a_module_trains_with_the_same_noise():
    def loss(model):
        return jnp.sum(jnp.square(model(X, MASK)[0]))

    plain, inner = make_stack(nnx.Rngs(0)), make_stack(nnx.Rngs(0))
    ours = nnx.jit(nnx.value_and_grad(loss))(jm.nn.SkipPadding(inner, pack=2))
    value, gradients = nnx.jit(nnx.value_and_grad(loss))(plain)
    assert_close((ours[0], ours[1]["layer"]), (value, gradients), atol=1e-4)
    assert_close(
        jax.tree.leaves(nnx.state(inner, nnx.RngCount)),
        jax.tree.leaves(nnx.state(plain, nnx.RngCount)),
    )


# -------------------------------------------------------------------------- what is refused


def mixing(x, mask):
    y, _ = jm.ops.fill(x, mask)
    return jm.ops.fill(y - y.mean((0, 1)), mask)


def of_places(x, mask):
    """Reads the place of a step in its row, which packing moves."""
    return jm.ops.fill(x + jnp.arange(x.shape[1])[:, None], mask)


def crossing(x, mask):
    """Takes no notice of where a sequence ends."""
    real = jm.masks.as_bool(mask)
    return jnp.cumsum(jm.ops.fill(x, real)[0], 1), mask


@pytest.mark.parametrize("f", [mixing, of_places, crossing])
def test_check_finds_what_shapes_do_not_show(f):
    report = jm.skip_padding(f, pack=2).check(X, MASK)
    assert not report.ok
    assert "result[0]" in str(report)


@pytest.mark.parametrize("f", [of_the_time_axis, no_carry])
def test_check_acquits_what_is_right(f):
    rest = (WEIGHTS,) if f is no_carry else ()
    assert jm.skip_padding(f, pack=2).check(X, MASK, *rest).ok


def noise_of_rows(x, mask, row_ids):
    keys = jm.random.step_keys(jax.random.key(0), x[:, 0], None, row_ids=row_ids)
    return x + jax.vmap(jax.random.normal)(keys)[:, None, None], mask


REFUSED = {
    "a strided layer": (lambda: jm.skip_padding(strided, pack=2)(X, MASK), "by a stride"),
    "a sum": (lambda: jm.skip_padding(lambda x, m: (x.sum(0), m), pack=2)(X, MASK), "result[0]"),
    "a carry": (lambda: jm.skip_padding(jm.recurrent.lstm, pack=2)(X, MASK, WEIGHTS), "result[0]"),
    "no mask": (lambda: jm.skip_padding(lambda x, m: (x, None), pack=2)(X, MASK), "None"),
    "segments": (lambda: jm.skip_padding(jm.ops.softmax, pack=2)(X, SEGMENTS), "already"),
    "lengths": (lambda: jm.skip_padding(jm.ops.softmax, pack=2, lengths=(3,)), "no meaning"),
    "arrays by row": (lambda: jm.skip_padding(weighted, pack=2, rest="row"), "repeat it"),
    "no packed row": (lambda: jm.skip_padding(jm.ops.softmax, pack=0), "at least 1"),
    "noise of rows": (
        lambda: jm.skip_padding(noise_of_rows, pack=2)(X, MASK),
        "several sequences",
    ),
}


def test_the_plan_says_how_many_packed_rows_a_batch_fills():
    mask = np.arange(4) < np.array([2, 4, 1, 0, 2, 4, 0])[:, None]
    explain = jm.skip_padding(jm.ops.softmax, pack=True).explain
    assert explain(None, mask).packed_rows == 4  # 4, 4, 2 + 2, 1
    traced = []
    jax.eval_shape(lambda m: traced.append(explain(None, m)), mask)
    jax.eval_shape(lambda: traced.append(explain(None, mask)))
    assert [plan.packed_rows for plan in traced] == [None, 4]
    assert jm.skip_padding(jm.ops.softmax).explain(None, mask).packed_rows is None
    mask = np.arange(9) < np.random.default_rng(0).integers(0, 5, (30, 1))
    plan = jm.skip_padding(jm.ops.softmax, pack=1).explain(None, mask)
    assert plan.packed_rows == place(plan, mask, True).chunks


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_packed(case):
    call, text = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(text)):
        call()


def test_a_function_without_packed_rows_says_what_to_do():
    def f(x, mask):
        if isinstance(mask, jm.Segments):
            raise TypeError("a boolean mask is needed")
        return x, mask

    with pytest.raises(TypeError) as caught:
        jm.skip_padding(f, pack=True)(X, MASK)
    assert any("`pack`" in note for note in caught.value.__notes__)
