"""`skip_padding` equals the function itself, at fewer steps, under every transform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export
from jax.sharding import Mesh, PartitionSpec

import jaxmask as jm

LENGTHS = np.array([3, 9, 24, 1, 17, 0, 8, 2, 11, 5])
BATCH, TIME = len(LENGTHS), 24
MASK = np.arange(TIME) < LENGTHS[:, None]
X = np.where(MASK[..., None], np.random.default_rng(0).normal(size=(BATCH, TIME, 4)), np.nan)
X = X.astype(np.float32)
WEIGHTS = jm.recurrent.LSTMWeights(
    *(0.4 * jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(4, 12), (3, 12)])),
    jnp.linspace(-1, 1, 12),
)
SEGMENTS = jm.Segments(np.where(MASK, 1 + (np.arange(TIME) > 4), 0), max_segments=2)
skip = functools.partial(jm.skip_padding, lengths=(4, 10), groups=4)


def strided(x, mask):
    return jm.conv.max_pool1d(x, mask, 3, strides=2)


def of_a_pytree(x, mask):
    y, _ = jm.ops.softmax(x["a"], mask)
    c, _ = jm.ops.fill(x["c"], mask)
    return {"b": y * c[..., None]}, mask


def counted(x, mask):
    """Integer results."""
    return jm.ops.cumsum(jnp.nan_to_num(x).astype(jnp.int32), mask)


def recurrent_from(x, mask, weights, carry):
    return jm.recurrent.lstm(x, mask, weights, carry)


def weighted(x, mask, weights):
    y, _ = jm.ops.fill(x, mask)
    return y * weights[..., None], mask


CARRY = jm.recurrent.LSTMCarry(
    np.full((BATCH, 3), 0.5, np.float32), np.ones((BATCH, 3), np.float32)
)
STEP_WEIGHTS = np.random.default_rng(1).random((BATCH, TIME)).astype(np.float32)
SEVEN = np.array([0, 1, 2, 3, 4, 6, 7])  # in three groups of three, without an empty row
KERNEL = np.random.default_rng(3).normal(size=(3, 4, 5)).astype(np.float32)
CASES = {
    "by row": (jm.pool.mean, X, MASK, (), "shared"),
    "by step": (jm.ops.softmax, X, MASK, (), "shared"),
    "strided": (strided, X, MASK, (), "shared"),
    "a pytree": (of_a_pytree, {"a": X, "c": X[..., 0]}, MASK, (), "shared"),
    "integers": (counted, X, MASK, (), "shared"),
    "weights": (jm.recurrent.lstm, X, MASK, (WEIGHTS,), "shared"),
    "a group filled up": (jm.recurrent.lstm, X[SEVEN], MASK[SEVEN], (WEIGHTS,), "shared"),
    "a convolution": (jm.conv.conv1d, X, MASK, (KERNEL,), "shared"),
    "a carry": (recurrent_from, X, MASK, (WEIGHTS, CARRY), ("shared", "row")),
    "weights of steps": (weighted, X, MASK, (STEP_WEIGHTS,), "step"),
    "segments": (jm.ops.cumsum, X, SEGMENTS, (), "shared"),
    "pooled segments": (jm.pool.mean, X, SEGMENTS, (), "shared"),
    "left padding": (jm.ops.softmax, X[:, ::-1], MASK[:, ::-1], (), "shared"),
}


def loss_of(f, mask):
    """A weighted sum of all floating results, with what `f` returns."""

    def loss(x, rest):
        results = f(x, mask, *rest)
        floats = [y for y in jax.tree.leaves(results) if jnp.issubdtype(y.dtype, jnp.floating)]
        weights = (jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape) for y in floats)
        return sum((jnp.vdot(y, w) for y, w in zip(floats, weights, strict=True)), 0.0), results

    return loss


def assert_close(ours, theirs, atol=2e-5):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=atol, rtol=1e-5), ours, theirs)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_function(case):
    f, x, mask, rest, kinds = CASES[case]
    ours, theirs = (
        jax.jit(jax.value_and_grad(loss_of(g, mask), (0, 1), has_aux=True))(x, rest)
        for g in (skip(f, rest=kinds, groups=3, lengths=(10,)), f)
    )
    assert_close(ours, theirs)


def recorded(lengths):
    """A function that says at which lengths it runs."""

    def f(x, mask):
        zero = jax.pure_callback(
            lambda: (lengths.append(x.shape[1]), np.float32(0))[1],
            jax.ShapeDtypeStruct((), np.float32),
        )
        return jm.ops.fill(x, mask)[0] + zero, mask

    return f


def test_groups_run_at_the_shortest_length_that_holds_them():
    lengths = []
    jax.block_until_ready(jax.jit(skip(recorded(lengths), groups=5))(X, MASK))
    assert sorted(lengths) == [4, 4, 10, 24, 24]  # 0 1, 2 3, 5 8, 9 11, 17 24


def test_a_batch_without_a_real_step_runs_nothing():
    lengths = []
    y, mask = jax.jit(skip(recorded(lengths)))(X, np.zeros_like(MASK))
    assert not lengths
    assert not y.any()
    assert not mask.any()


def test_a_carry_of_an_empty_batch_stays():
    g = skip(recurrent_from, rest=("shared", "row"))
    carry, (y, _) = jax.jit(g)(X, np.zeros_like(MASK), WEIGHTS, CARRY)
    assert_close(carry, CARRY)
    assert not y.any()


def closed_over(g):
    return lambda weights: loss_of(g(lambda x, m: jm.recurrent.lstm(x, m, weights)), MASK)(X, ())[0]


def test_gradients_of_what_the_function_closes_over():
    ours = jax.jit(jax.grad(closed_over(skip)))(WEIGHTS)
    assert_close(ours, jax.jit(jax.grad(closed_over(lambda f: f)))(WEIGHTS))


def test_vmap_of_a_gradient():
    def gradient(f, scale):
        return jax.grad(lambda x: loss_of(f, MASK)(x, ())[0])(scale * X)

    scales = np.array([0.5, 1.0, 2.0], np.float32)
    ours = jax.jit(jax.vmap(functools.partial(gradient, skip(jm.ops.softmax))))(scales)
    theirs = jax.jit(jax.vmap(functools.partial(gradient, jm.ops.softmax)))(scales)
    assert_close(ours, theirs)


def test_vmap_over_masks_runs_each_at_its_lengths():
    lengths = []
    masks = np.stack([MASK, MASK & (np.arange(TIME) < 4)])
    jax.block_until_ready(jax.jit(jax.vmap(skip(recorded(lengths), groups=1), (None, 0)))(X, masks))
    assert sorted(lengths) == [4, 24]


def test_second_derivatives():
    def slope(f, scale):
        return jax.grad(lambda s: loss_of(f, MASK)(s * jnp.nan_to_num(X), ())[0])(scale)

    ours = jax.jit(jax.grad(functools.partial(slope, skip(jm.ops.softmax))))(1.3)
    theirs = jax.jit(jax.grad(functools.partial(slope, jm.ops.softmax)))(1.3)
    assert abs(theirs) > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_forward_mode_names_the_way_out():
    with pytest.raises(TypeError, match="Call `f` itself"):
        jax.jvp(lambda x: skip(jm.ops.softmax)(x, MASK)[0], (jnp.asarray(X),), (jnp.asarray(X),))


def test_it_exports_for_known_and_for_symbolic_sizes():
    g = jax.jit(skip(jm.ops.softmax))
    known = export.export(g)(X, MASK)
    assert_close(known.call(X, MASK), jm.ops.softmax(X, MASK))
    rows, steps = export.symbolic_shape("rows, steps")
    of_any = export.export(jax.jit(jm.skip_padding(jm.ops.softmax)))(
        jax.ShapeDtypeStruct((rows, steps, 4), np.float32),
        jax.ShapeDtypeStruct((rows, steps), np.bool_),
    )
    assert_close(of_any.call(X, MASK), jm.ops.softmax(X, MASK))


def on_mesh(f, devices=1):
    """The loss of weights, with rows spread over devices that each sort their own."""
    rows, everywhere = PartitionSpec("rows"), PartitionSpec()
    spread = jax.shard_map(
        f,
        mesh=Mesh(np.array(jax.devices()[:devices]), ("rows",)),
        in_specs=(rows, rows, everywhere),
        out_specs=(rows, rows),
    )
    return loss_with_weights(spread)


def loss_with_weights(f):
    return lambda weights: loss_of(lambda x, mask: f(x, mask, weights), MASK)(X, ())[0]


def sequence(x, mask, weights):
    return jm.recurrent.lstm(x, mask, weights)[1]


def test_each_device_sorts_its_own_rows():
    ours = jax.jit(jax.value_and_grad(on_mesh(skip(sequence))))(WEIGHTS)
    assert_close(ours, jax.jit(jax.value_and_grad(loss_with_weights(sequence)))(WEIGHTS))


def test_weights_that_devices_share_must_be_arguments():
    def f(x, mask, weights):
        return skip(lambda x, mask: sequence(x, mask, weights))(x, mask)

    with pytest.raises(ValueError, match="must be arguments of `f`"):
        jax.grad(on_mesh(f))(WEIGHTS)


def test_under_a_mesh_the_function_runs_as_it_is():
    with jax.set_mesh(Mesh(np.array(jax.devices()[:1]), ("rows",))):
        assert "gather" in skip(jm.ops.softmax).explain(X, MASK).reason


def test_compact_takes_left_padding_and_holes():
    lengths = []
    holes = np.random.default_rng(2).permuted(MASK, axis=1)
    g = skip(lambda x, m: jm.ops.cumsum(recorded(lengths)(x, m)[0], m), groups=5, compact=True)
    ours = jax.jit(g)(np.where(holes[..., None], 1.0, np.nan).astype(np.float32), holes)
    assert_close(ours, jm.ops.cumsum(np.where(holes[..., None], 1.0, 0).astype(np.float32), holes))
    assert sorted(lengths) == [4, 4, 10, 24, 24]


def test_compact_refuses_results_without_a_step_to_go_back_to():
    with pytest.raises(ValueError, match="no step to go back to"):
        skip(strided, compact=True)(X, MASK)


def drop(x, mask, row_ids):
    return jm.random.dropout(x, mask, jax.random.key(3), 0.5, row_ids=row_ids)


def test_rows_have_ids_where_the_function_runs_as_it_is():
    x = jnp.ones((4, 3, 2))
    assert_close(skip(drop)(x, None), drop(x, None, np.arange(4)))


def test_ids_of_a_group_are_no_ids_of_rows():
    with pytest.raises(ValueError, match="has no index in the batch"):
        skip(lambda x, m, row_ids: skip(drop, lengths=(2,))(x, m))(X, MASK)


def test_an_empty_row_keeps_its_value_where_no_mask_comes_back():
    def shifted(x, mask):
        return jm.pool.mean(x, mask)[0] + 1, None

    ours = jax.jit(skip(shifted))(X, np.zeros_like(MASK))
    assert_close(ours, (np.ones((BATCH, 4), np.float32), None))


def test_an_empty_row_keeps_the_step_that_the_function_adds():
    def with_a_start(x, mask):
        y, _ = jm.ops.fill(x, mask)
        widths = ((0, 0), (1, 0))
        added = jnp.pad(y, (*widths, (0, 0)), constant_values=1.0)
        return added, jnp.pad(mask, widths, constant_values=True)

    y, mask = jax.jit(skip(with_a_start))(X, np.zeros_like(MASK))
    assert y[:, 0].all()
    assert mask[:, 0].all()


def test_no_tracer_outlives_its_trace():
    with jax.checking_leaks():
        jax.make_jaxpr(jax.grad(closed_over(skip)))(WEIGHTS)


# --------------------------------------------------------------------------- noise and modules


def test_noise_keeps_the_ids_of_rows():
    def f(x, mask, row_ids=None):
        return jm.random.dropout(x, mask, jax.random.key(3), 0.5, row_ids=row_ids)

    assert_close(jax.jit(skip(f))(X, MASK), jax.jit(f)(X, MASK))


def test_noise_without_ids_is_refused():
    with pytest.raises(ValueError, match="def f\\(x, mask, row_ids\\)"):
        skip(lambda x, m: jm.random.dropout(x, m, jax.random.key(0), 0.5))(X, MASK)


def make_stack(rngs):
    attention = jm.nn.MultiHeadAttention(2, 4, dropout_rate=0.3, rngs=rngs)
    rnn = jm.nn.SimpleRNN(4, 3, method="scan", rngs=rngs)
    return jm.nn.Sequential(attention, jm.nn.Dropout(0.2, rngs=rngs), rnn)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("given", [{}, {"rngs": nnx.Rngs(5)}, {"row_ids": np.arange(BATCH) + 7}])
def test_a_module_draws_the_same_noise_and_advances_alike(given):
    outputs = []
    for wrap in (lambda m: m, lambda m: jm.nn.SkipPadding(m, lengths=(10,), groups=3)):
        model = wrap(make_stack(nnx.Rngs(0)))
        options = {name: nnx.clone(v) if name == "rngs" else v for name, v in given.items()}

        @nnx.jit
        def run(model, options):
            return model(X, MASK, **options)

        outputs.append([run(model, options), run(model, options)])
    plain, ours = outputs
    assert_close(ours, plain)
    assert not np.allclose(ours[0][0], ours[1][0])


def test_a_key_makes_the_noise_of_the_bare_layer():
    layer = jm.nn.Dropout(0.5)
    run = nnx.jit(lambda wrap, key: wrap(X, MASK, rngs=key))
    key = jax.random.key(5)
    assert_close(run(jm.nn.SkipPadding(layer, lengths=(4, 10)), key), run(layer, key))


def test_a_module_trains_as_without_the_wrapper():
    def loss(model):
        return jnp.sum(jnp.square(model(X, MASK)[0]))

    models = [make_stack(nnx.Rngs(0)), make_stack(nnx.Rngs(0))]
    ours, plain = (
        nnx.jit(nnx.grad(loss))(wrap(model))
        for wrap, model in zip(
            (lambda m: jm.skip_padding(m, lengths=(10,)), lambda m: m), models, strict=True
        )
    )
    assert_close(ours["layer"], plain, atol=1e-4)


def test_statistics_of_a_batch_are_refused_by_name():
    layer = jm.nn.SkipPadding(jm.nn.BatchNorm(4, rngs=nnx.Rngs(0)), lengths=(4,))
    with pytest.raises(ValueError, match="mean"):
        layer(X, MASK)
    layer.eval()
    assert layer.check(jnp.nan_to_num(X), MASK).ok


# --------------------------------------------------------------------------- what is refused


def mixing(x, mask):
    y, _ = jm.ops.fill(x, mask)
    return jnp.where(mask[..., None], y - y.mean((0, 1)), 0), mask


def of_the_time_axis(x, mask):
    return jm.ops.fill(x, mask)[0] * x.shape[1], mask


@pytest.mark.parametrize("f", [mixing, of_the_time_axis])
def test_check_finds_what_shapes_do_not_show(f):
    report = skip(f).check(X, MASK)
    assert not report.ok
    assert "result[0]" in str(report)


def test_check_acquits_what_is_right():
    report = skip(jm.recurrent.lstm).check(X, MASK, WEIGHTS)
    assert report.ok
    assert "(4, 10, 24)" in str(report)


REFUSED = {
    "a sum": (lambda x, m: (x.sum(), m), ValueError, "mixes them"),
    "no pair": (lambda x, m: x, TypeError, "must return a pair"),
    "no mask": (lambda x, m: (x, None), jm.MaskError, "Return the mask too"),
    "a fixed time axis": (
        lambda x, m: (x[:, :2], jnp.ones((x.shape[0], 2), bool)),
        ValueError,
        "does not follow",
    ),
    "an array of the batch": (lambda x, m: (x + X, m), TypeError, "add got incompatible"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_functions_that_cannot_skip(case):
    f, error, text = REFUSED[case]
    with pytest.raises(error, match=text) as caught:
        skip(f)(X, MASK)
    if case == "an array of the batch":
        assert any('rest="row"' in note for note in caught.value.__notes__)


@pytest.mark.parametrize("result", [lambda x, m: x.sum(), lambda x, m: (x.sum(), m.sum())])
@pytest.mark.parametrize("size", [(4, 8), (64, 64)])
def test_a_loss_is_refused_at_every_size(result, size):
    with pytest.raises((TypeError, ValueError), match=r"the mean outside|must return a pair"):
        jm.skip_padding(result)(np.ones(size), np.ones(size, bool))


BAD_CALLS = {
    "a length too long": (lambda: skip(jm.ops.softmax, lengths=(40,))(X, MASK), "24 steps"),
    "no length": (lambda: skip(jm.ops.softmax, lengths=()), "at least one"),
    "no groups": (lambda: skip(jm.ops.softmax, groups=0), "at least 1"),
    "another kind": (lambda: skip(jm.ops.softmax, rest="rows"), "shared"),
    "a kind too many": (lambda: skip(jm.ops.softmax, rest=("row",))(X, MASK), "one entry"),
    "a row mask": (lambda: skip(jm.ops.softmax)(X, MASK[:, 0]), "rank 2"),
    "other rows": (
        lambda: skip(weighted, rest="row")(X, MASK, np.zeros((3, 2), np.float32)),
        "begin with",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls(case):
    call, text = BAD_CALLS[case]
    with pytest.raises(ValueError, match=text):
        call()


def test_without_a_mask_the_function_runs_as_it_is():
    y, mask = skip(jm.ops.softmax)(jnp.ones((2, 3, 1)), None)
    assert mask is None
    assert float(y[0, 0, 0]) == pytest.approx(1 / 3)
    report = skip(jm.ops.softmax).check(jnp.ones((2, 3, 1)), None)
    assert report.ok
    assert "nothing to skip" in str(report)


def test_check_compares_narrow_floats_as_floats():
    x = jnp.asarray(np.where(np.arange(TIME)[:, None] == 1, np.nan, X), jnp.bfloat16)
    report = skip(jm.ops.cumsum).check(x, MASK)
    assert report.ok, report


def test_a_module_takes_a_number_of_numpy():
    assert jm.nn.SkipPadding(jm.nn.Dropout(0.5), lengths=np.int64(2)).lengths == 2
