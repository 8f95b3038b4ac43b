"""The engine is the plain scan, in values and in all derivatives, whatever is asked of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

import jaxmask as jm
from jaxmask.recurrent import Choice, explain

DRAW = np.random.default_rng(0)
BATCH, TIME, FEATURE, HIDDEN = 7, 11, 3, 4
X = DRAW.normal(size=(BATCH, TIME, FEATURE)).astype(np.float32)
RIGHT = np.arange(TIME) < np.array([11, 9, 0, 4, 4, 1, 10])[:, None]
RESETS = DRAW.random((BATCH, TIME)) < 0.3
ENGINES = ("tiled", "dense", "pallas")
THREE = Choice("tiled", slots=(1, 3, 7), steps=4)  # for so few rows "tiled" has one number of slots
MASKS = {
    "none": None,
    "right": RIGHT,
    "left": RIGHT[:, ::-1],
    "holes": DRAW.random((BATCH, TIME)) < 0.4,
    "empty": np.zeros((BATCH, TIME), bool),
}
CELLS = {
    "lstm": (jm.recurrent.lstm, 4, {}),
    "gru": (jm.recurrent.gru, 3, {}),
    "gru with two biases": (jm.recurrent.gru, 3, {}),
    "tanh": (jm.recurrent.simple, 1, {}),
    "relu": (jm.recurrent.simple, 1, {"activation": "relu"}),
}
WEIGHTS = {
    "lstm": jm.recurrent.LSTMWeights,
    "gru": jm.recurrent.GRUWeights,
    "gru with two biases": jm.recurrent.GRUWeights,
    "tanh": jm.recurrent.SimpleWeights,
    "relu": jm.recurrent.SimpleWeights,
}


def weights_of(cell, feature=FEATURE, hidden=HIDDEN, members=()):
    draw = np.random.default_rng(1)
    gates = CELLS[cell][1] * hidden
    bias = (2, gates) if "two" in cell else (gates,)
    shapes = (feature, gates), (hidden, gates), bias
    return WEIGHTS[cell](*(0.5 * draw.normal(size=(*members, *s)) for s in shapes))


def carry_of(cell, batch=BATCH, hidden=HIDDEN):
    draw = np.random.default_rng(2)
    h, c = (draw.normal(size=(batch, hidden)) for _ in "hc")
    return (h, c) if cell == "lstm" else h


@functools.partial(jax.jit, static_argnames=("cell", "method", "reverse"))
def run_and_pull(cell, x, mask, weights, carry, method, reverse=False, resets=None):
    """Everything that comes out, and the gradient of everything that goes in."""
    layer, _, options = CELLS[cell]

    def run(x, weights, carry):
        options_ = {**options, "reverse": reverse, "resets": resets, "method": method}
        carry, (y, _) = layer(x, mask, weights, carry, **options_)
        return *jax.tree.leaves(carry), y

    y, pull = jax.vjp(run, x, weights, carry)
    return y, pull(tuple(jnp.cos(jnp.arange(a.size)).reshape(a.shape).astype(a.dtype) for a in y))


def assert_same(ours, theirs, rtol=1e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def assert_engine_is_scan(cell, x, mask, weights, carry, rtol=1e-5, methods=ENGINES, **options):
    narrow = jax.tree.map(lambda a: jnp.asarray(a, x.dtype), (weights, carry))
    scanned, *others = (
        run_and_pull(cell, x, mask, *narrow, method, **options) for method in ("scan", *methods)
    )
    for other in others:
        assert_same(other, scanned, rtol)


@pytest.mark.sampled(17)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("cell", CELLS)
def test_it_is_the_scan(cell, name, reverse):
    poisoned = X if MASKS[name] is None else np.where(MASKS[name][..., None], X, np.nan)
    poisoned = poisoned.astype(np.float32)
    assert_engine_is_scan(
        cell, poisoned, MASKS[name], weights_of(cell), carry_of(cell), reverse=reverse
    )


@pytest.mark.sampled(11)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["none", "right", "holes", "empty"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "relu"])
def test_resets(cell, name, reverse):
    assert_engine_is_scan(
        cell, X, MASKS[name], weights_of(cell), carry_of(cell), reverse=reverse, resets=RESETS
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_segments(cell):
    ids = np.array([[1] * 4 + [2] * 5 + [0] * 2, [0, 1, 1, 0, 3, 3, 3, 0, 0, 2, 2]], np.int32)
    mask = jm.Segments(jnp.asarray(ids), 3)
    assert_engine_is_scan(cell, X[:2], mask, weights_of(cell), carry_of(cell, 2))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("sizes", [((1,), 2), ((2, 4), 3), ((3,), 11), ((8,), 4), ((1, 2, 7), 1)])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_any_slots_and_steps_give_the_same(cell, sizes):
    inputs = cell, X, RIGHT, weights_of(cell), carry_of(cell)
    assert_engine_is_scan(*inputs, methods=[Choice("tiled", *sizes)], resets=RESETS)


@pytest.mark.sampled(11)
@pytest.mark.parametrize("unroll", [4, 16])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["none", "holes"])
@pytest.mark.parametrize("cell", ["lstm", "gru with two biases", "relu"])
def test_unrolled_steps_give_the_same(cell, name, reverse, unroll):
    """Those that fill up the last iteration leave the state, wherever it comes from."""
    options = {"reverse": reverse, "resets": RESETS}
    inputs = X, MASKS[name], weights_of(cell), carry_of(cell)
    unrolled = Choice("dense", unroll=unroll)
    dense, scanned = (run_and_pull(cell, *inputs, m, **options) for m in (unrolled, "scan"))
    assert_same(dense, scanned)
    layer, _, more = CELLS[cell]
    alone, (y, _) = layer(*inputs, method=unrolled, **more, **options)  # keeps nothing
    assert_same((alone, y), scanned[0])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_rows_and_steps_that_do_not_fill_the_last_block_of_the_kernel(cell, reverse):
    inputs = cell, X, RIGHT, weights_of(cell), carry_of(cell)
    kernel = Choice("pallas", slots=(4,), steps=3)
    assert_engine_is_scan(*inputs, methods=[kernel], resets=RESETS, reverse=reverse)


def test_more_slots_than_rows_are_as_many_as_there_are_rows():
    found = explain(BATCH, TIME, HIDDEN, method=Choice("tiled", slots=[9, 2, 12], steps=3))
    assert found == Choice("tiled", slots=(2, 7), steps=3, unroll=found.unroll)
    rows = 2  # in a shard, say
    inputs = "lstm", X[:rows], RIGHT[:rows], weights_of("lstm"), carry_of("lstm", rows)
    assert_engine_is_scan(*inputs, methods=[Choice("tiled", slots=(2, 5))])


@pytest.mark.parametrize(
    ("sizes", "error"),
    [({"slots": (0,)}, ValueError), ({"steps": -1}, ValueError), ({"unroll": 1.5}, TypeError)],
)
def test_sizes_are_whole_numbers(sizes, error):
    (name,) = sizes
    with pytest.raises(error, match=f"Choice: `{name}`"):
        Choice("tiled", **sizes)


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="Choice: `method`"):
        Choice("fast")


def test_a_module_takes_a_choice():
    layers = [
        jm.nn.LSTM(FEATURE, HIDDEN, method=method, rngs=nnx.Rngs(0)) for method in (THREE, "scan")
    ]
    run = nnx.jit(nnx.value_and_grad(lambda layer: jnp.sum(layer(X, RIGHT)[0] ** 2)))
    assert_same(*(jax.tree.leaves(run(layer)) for layer in layers))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_step_alone_is_not_dealt_to_slots(cell):
    layer, inputs = CELLS[cell][0], (X[:, :1], RIGHT[:, :1], weights_of(cell), carry_of(cell))
    assert_engine_is_scan(cell, *inputs, resets=RESETS[:, :1])
    alone, scanned = (layer(*inputs, method=method) for method in ("dense", "scan"))
    assert_same(alone, scanned)
    program = jax.make_jaxpr(lambda x: layer(x, *inputs[1:], method="dense"))(inputs[0])
    assert "sort[" not in str(program)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_lengths_and_holes(data):
    """One shape, hence one compile; the masks are whatever Hypothesis thinks of."""
    rows = st.lists(st.booleans(), min_size=TIME, max_size=TIME)
    bits = data.draw(st.lists(rows, min_size=BATCH, max_size=BATCH))
    resets = data.draw(st.lists(rows, min_size=BATCH, max_size=BATCH))
    options = {"reverse": data.draw(st.booleans()), "resets": np.array(resets)}
    inputs = "lstm", X, np.array(bits), weights_of("lstm"), carry_of("lstm")
    assert_engine_is_scan(*inputs, methods=(THREE, "dense", "pallas"), **options)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_half_precision_keeps_a_wide_carry(cell):
    x = X.astype(jnp.bfloat16)
    weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), weights_of(cell))
    tiled = run_and_pull(cell, x, RIGHT, weights, None, "tiled")
    states = 2 if cell == "lstm" else 1
    assert [a.dtype for a in tiled[0]] == [jnp.float32] * states + [jnp.bfloat16]
    assert_same(tiled, run_and_pull(cell, x, RIGHT, weights, None, "scan"), rtol=0.05)


def test_double_precision():
    with jax.enable_x64(True):
        x = X.astype(np.float64)
        weights = jax.tree.map(jnp.asarray, weights_of("lstm"))
        tiled, scanned = (
            run_and_pull("lstm", x, RIGHT, weights, None, m) for m in ("tiled", "scan")
        )
        assert tiled[0][0].dtype == np.float64
        for a, b in zip(jax.tree.leaves(tiled), jax.tree.leaves(scanned), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_lengths_are_data():
    traces = []

    @jax.jit
    def run(mask):
        traces.append(None)
        return jm.recurrent.lstm(X, mask, weights_of("lstm"), method="tiled")

    for mask in (RIGHT, RIGHT[:, ::-1], RIGHT[::-1]):
        run(mask)
    assert len(traces) == 1


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_row_without_a_step_passes_its_carry_on(cell):
    """Two rows in three slots: one of them has nothing to do, and its unit is not that row's."""
    mask = np.arange(TIME) < np.array([[11, 9, 0, 0, 0, 0, 0]]).T
    assert_engine_is_scan(cell, X, mask, weights_of(cell), carry_of(cell), methods=[THREE])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_rows_of_one_chunk_have_no_room_for_gates(cell):
    x, mask = X[:, :2], np.arange(2) < np.array([[2, 0, 0, 1, 0, 0, 0]]).T
    assert_engine_is_scan(cell, x, mask, weights_of(cell), carry_of(cell), methods=[THREE])


def test_training_ends_where_that_with_the_scan_ends():
    """Two hundred steps of Adam, each on rows of other lengths, drift apart by rounding alone."""
    draw, steps, hidden = np.random.default_rng(3), 200, 16
    xs = draw.normal(size=(steps, BATCH, TIME, FEATURE)).astype(np.float32)
    masks = np.arange(TIME) < draw.integers(0, TIME + 1, (steps, BATCH, 1))
    optimizer = optax.adam(1e-2)
    start = weights_of("lstm", hidden=hidden), draw.normal(size=hidden) / hidden
    start = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), start)

    def train(method):
        def loss(params, x, mask):
            weights, readout = params
            carry, _ = jm.recurrent.lstm(x, mask, weights, method=method)
            return jnp.mean((carry.h @ readout - jm.pool.mean(x[..., 0], mask)[0]) ** 2)

        def step(carry, batch):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, *batch)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), value

        return jax.jit(jax.lax.scan, static_argnums=0)(
            step, (start, optimizer.init(start)), (xs, masks)
        )[1]

    tiled, scanned = np.asarray(train("tiled")), np.asarray(train("scan"))
    assert tiled[-20:].mean() < tiled[:20].mean() / 3
    np.testing.assert_allclose(tiled[-20:].mean(), scanned[-20:].mean(), rtol=1e-3)


# ------------------------------------------------------------------------------ vmap


@pytest.mark.sampled(4)
@pytest.mark.parametrize("over", ["rows", "weights", "both", "one matrix", "twice"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_vmap(cell, over):
    """A map over rows, over an ensemble of weights, over both, or over one of the matrices."""
    members = 3
    x, mask = np.stack([X, X[::-1], -X]), np.stack([RIGHT, RIGHT[:, ::-1], RIGHT])
    weights = weights_of(cell, members=(members,))
    one = jax.tree.map(lambda w: w[0], weights)
    x, mask, weights, one = jax.tree.map(
        lambda a: a if a.dtype == bool else jnp.asarray(a, jnp.float32), (x, mask, weights, one)
    )
    arguments, axes = {
        "rows": ((x, mask, one), (0, 0, None)),
        "weights": ((X, RIGHT, weights), (None, None, 0)),
        "both": ((x, mask, weights), (0, 0, 0)),
        "one matrix": ((X, RIGHT, one._replace(w_h=weights.w_h)), (None, None, (None, 0, None))),
        "twice": ((x[None], mask[None], one), (0, 0, None)),
    }[over]
    if over == "one matrix":
        axes = (None, None, type(one)(None, 0, None))

    def values_and_gradients(method):
        def run(x, mask, weights):
            return run_and_pull(cell, x, mask, weights, None, method)

        mapped = jax.vmap(run, axes)
        return (jax.vmap(mapped, axes) if over == "twice" else mapped)(*arguments)

    scanned = values_and_gradients("scan")
    for method in ENGINES:
        assert_same(values_and_gradients(method), scanned)


# One member by itself, one in three slots, and one with all rows at once.
UNEVEN = np.stack(
    [
        np.arange(TIME) < np.array([lengths]).T
        for lengths in ([11, 0, 0, 0, 0, 0, 0], [11, 9, 3, 2, 1, 0, 0], [11] * 7)
    ]
)


def test_members_choose_their_own_number_of_slots():
    weights = weights_of("lstm")

    def mapped(method):
        run = functools.partial(run_and_pull, "lstm", X, method=method)
        return jax.vmap(lambda mask: run(mask, weights, None))(UNEVEN)

    assert_same(mapped(THREE), mapped("scan"))


def test_what_was_saved_one_by_one_may_be_pulled_back_together():
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights_of("lstm"))

    def gradients(method):
        def run(mask):
            return jax.vjp(lambda w: jm.recurrent.lstm(X, mask, w, method=method)[1][0], weights)

        y, pull = jax.lax.map(run, UNEVEN)
        return jax.vmap(lambda pull, given: pull(given))(pull, jnp.cos(y))

    assert_same(gradients(THREE), gradients("scan"))


def test_the_gradient_of_a_map_sums_over_it():
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights_of("lstm"))

    def loss(weights, method):
        run = functools.partial(jm.recurrent.lstm, weights=weights, method=method)
        return jnp.sum(jax.vmap(lambda x: run(x, RIGHT)[1][0])(jnp.stack([X, -X])) ** 2)

    for method in ENGINES:
        assert_same(jax.grad(loss)(weights, method), jax.grad(loss)(weights, "scan"))


def test_a_map_makes_one_loop():
    """No loop whose trip count differs by index: that would select among whole buffers."""
    run = functools.partial(jm.recurrent.lstm, weights=weights_of("lstm"), method="tiled")
    program = str(jax.make_jaxpr(jax.vmap(run))(np.stack([X, X]), np.stack([RIGHT, RIGHT])))
    assert program.count("while[") == str(jax.make_jaxpr(run)(X, RIGHT)).count("while[") == 1


# ------------------------------------------------------------------------------ derivatives


def loss_of(cell, method, weights, x):
    layer, _, options = CELLS[cell]
    carry, (y, _) = layer(x, RIGHT[:3], weights, method=method, **options)
    return jnp.sum(y**3) + sum(jnp.sum(a**2) for a in jax.tree.leaves(carry))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("how", ["hessian", "reverse over reverse"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
def test_second_derivatives(cell, how):
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights_of(cell))

    def second(method):
        def of_bias(b):
            return loss_of(cell, method, weights._replace(b=b), X[:3])

        if how == "hessian":
            return jax.jit(jax.hessian(of_bias))(weights.b)
        direction = np.cos(np.arange(weights.b.size, dtype=np.float32))
        return jax.jit(jax.grad(lambda b: jax.grad(of_bias)(b).ravel() @ direction))(weights.b)

    scanned = second("scan")
    for method in ENGINES:
        assert_same(second(method), scanned, rtol=1e-4)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("method", ENGINES)
def test_linearize_and_checkpoint(method):
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights_of("lstm"))
    expected = jax.grad(loss_of, 2)("lstm", "scan", weights, X[:3])

    def loss(weights):
        return loss_of("lstm", method, weights, X[:3])

    assert_same(jax.grad(jax.checkpoint(loss))(weights), expected)
    assert_same(jax.jit(jax.grad(jax.checkpoint(loss)))(weights), expected)
    assert_same(jax.vjp(loss, weights)[1](jnp.float32(1))[0], expected)


@pytest.mark.parametrize("method", ENGINES)
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
def test_forward_mode_names_the_scan(cell, method):
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights_of(cell))
    with pytest.raises(TypeError, match='`method="scan"`'):
        jax.jvp(lambda x: loss_of(cell, method, weights, x), (X[:3],), (X[:3],))
    _, slope = jax.jvp(lambda x: loss_of(cell, "scan", weights, x), (X[:3],), (X[:3],))
    assert np.isfinite(slope)


# ------------------------------------------------------------------------------ devices


@pytest.mark.parametrize("method", ENGINES)
def test_inside_shard_map(method):
    """Rows over all devices there are: one in a usual run, enough to tell whether all varies."""
    devices = jax.devices()
    mesh = Mesh(np.array(devices), ("rows",))
    rows, whole = PartitionSpec("rows"), PartitionSpec()
    x, mask = (np.concatenate([a] * len(devices)) for a in (X, RIGHT))

    def loss(weights, x, mask):
        _, (y, _) = jm.recurrent.lstm(x, mask, weights, method=method)
        return jax.lax.psum(jnp.sum(y**2), "rows")

    specs = {"in_specs": (whole, rows, rows), "out_specs": whole}
    # Interpreted, a kernel does not pass the checks.
    sharded = jax.shard_map(loss, mesh=mesh, check_vma=method != "pallas", **specs)
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights_of("lstm"))
    gradient = jax.jit(jax.grad(sharded))(weights, x, mask)

    def plain(weights):
        _, (y, _) = jm.recurrent.lstm(x, mask, weights, method="scan")
        return jnp.sum(y**2)

    assert_same(gradient, jax.grad(plain)(weights), rtol=1e-4)


@pytest.mark.sampled(7)
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("method", ENGINES)
def test_lowers(method, cell, platform):
    def loss(weights, x, mask):
        layer, _, options = CELLS[cell]
        return jnp.sum(layer(x, mask, weights, method=method, **options)[1][0] ** 2)

    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights_of(cell))
    exported = jax.export.export(jax.jit(jax.grad(loss)), platforms=[platform])
    exported = exported(weights, jnp.asarray(X), jnp.asarray(RIGHT))
    assert exported.platforms == (platform,)
    assert ("tpu_custom_call" in exported.mlir_module()) == (
        (method, platform) == ("pallas", "tpu")
    )


# ------------------------------------------------------------------------------ the choice


# From where on each method is faster, as docs/recurrent.md has it.
FEW_ROWS, LEAST_TIME, LEAST_HIDDEN, LEAST_HIDDEN_FULL = 16, 32, 16, 64


@pytest.mark.parametrize(
    ("rows", "full", "method"),
    [(FEW_ROWS + 1, False, "tiled"), (FEW_ROWS, False, "dense"), (FEW_ROWS + 1, True, "dense")],
)
def test_auto_takes_the_engine_for_a_real_layer(rows, full, method):
    draw, time, hidden = np.random.default_rng(0), LEAST_TIME, LEAST_HIDDEN_FULL
    x = jnp.asarray(draw.normal(size=(rows, time, 8)), jnp.float32)
    mask = None if full else np.arange(time) < draw.integers(0, time, (rows, 1))
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights_of("lstm", 8, hidden))
    assert explain(rows, time, hidden, full=full).method == method
    program = str(jax.make_jaxpr(lambda x: jm.recurrent.lstm(x, mask, weights))(x))
    assert "custom_vmap" in program
    auto, scanned = (run_and_pull("lstm", x, mask, weights, None, m) for m in ("auto", "scan"))
    assert_same(auto, scanned, rtol=1e-4)


def test_auto_takes_the_scan_where_it_is_faster():
    rows, time, hidden = FEW_ROWS + 1, LEAST_TIME, LEAST_HIDDEN
    for short in ((rows, time - 1, hidden), (rows, time, hidden - 1), (1, time, hidden - 1)):
        assert explain(*short).method == "scan"
    assert explain(rows, time, hidden, full=True).method == "scan"


@pytest.mark.parametrize(
    ("backend", "choice"), [("gpu", Choice("dense", (64,), 4, 8)), ("tpu", Choice("scan"))]
)
def test_auto_on_an_accelerator(backend, choice, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert explain(64, 128, 256) == choice
    assert explain(64, 128, 256, cell="gru", reset_after=False).method == "scan"


def test_packed_rows_are_full():
    """Their rows all step at once; the rows under a mask are sorted to be dealt to slots."""
    rows, hidden = FEW_ROWS + 1, LEAST_HIDDEN_FULL
    x = jnp.zeros((rows, LEAST_TIME, FEATURE))
    ids = jnp.ones(x.shape[:2], jnp.int32)
    weights = weights_of("lstm", hidden=hidden)

    def sorts(mask, **options):
        run = jax.make_jaxpr(lambda x: jm.recurrent.lstm(x, mask, weights, **options))
        return "sort[" in str(run(x))

    assert sorts(ids > 0)
    assert not sorts(jm.Segments(ids, 1))
    assert not sorts(ids > 0, segments=ids)


def test_a_symbolic_size_takes_the_scan():
    batch, time = jax.export.symbolic_shape("batch, time")
    x = jax.ShapeDtypeStruct((batch, time, 64), np.float32)
    mask = jax.ShapeDtypeStruct((batch, time), bool)
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights_of("lstm", 64, 64))
    run = jax.jit(lambda x, mask: jm.recurrent.lstm(x, mask, weights)[1][0])
    exported = jax.export.export(run)(x, mask)
    draw = np.random.default_rng(0).normal(size=(2, 3, 64)).astype(np.float32)
    mask = np.array([[True, True, False], [True, True, True]])
    assert_same(exported.call(draw, mask), run(draw, mask))
    assert "symbolic" in explain(batch, time, 64).reason
    with pytest.raises(ValueError, match="symbolic"):
        jax.eval_shape(lambda x: jm.recurrent.lstm(x, None, weights, method="tiled"), x)
    with pytest.raises(ValueError, match="symbolic"):
        jax.eval_shape(lambda x: jm.recurrent.lstm(x, None, weights, method="dense"), x)


def test_a_mesh_takes_the_scan_and_shard_map_the_engine():
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    with jax.set_mesh(mesh):
        choice = explain(80, LEAST_TIME, 64)
    assert choice.method == "scan"
    assert "shard_map" in choice.reason
    inside = []

    def look(x):
        inside.append(explain(80, LEAST_TIME, 64).method)
        return x

    rows = PartitionSpec("rows")
    look = jax.shard_map(look, mesh=mesh, in_specs=rows, out_specs=rows)
    jax.jit(look)(jnp.zeros(len(jax.devices())))
    assert inside == ["tiled"]


def test_a_gru_that_resets_before_takes_the_scan():
    assert explain(8, LEAST_TIME, 64, cell="gru", reset_after=False).method == "scan"
    with pytest.raises(ValueError, match="two products in a row"):
        jm.recurrent.gru(X, RIGHT, weights_of("gru"), reset_after=False, method="tiled")
