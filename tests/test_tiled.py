"""The engine is the plain scan, in values and in all derivatives, whatever is asked of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

import jaxmask as jm
from jaxmask.recurrent import _choice as methods
from jaxmask.recurrent._engine import on_chip
from jaxmask.recurrent._engine.arrange import arrange, line_up
from jaxmask.recurrent._engine.room import at_gates, room_for
from jaxmask.recurrent._engine.schedule import Tiles, units_for

DRAW = np.random.default_rng(0)
BATCH, TIME, FEATURE, HIDDEN = 7, 11, 3, 4
X = DRAW.normal(size=(BATCH, TIME, FEATURE)).astype(np.float32)
RIGHT = np.arange(TIME) < np.array([11, 9, 0, 4, 4, 1, 10])[:, None]
RESETS = DRAW.random((BATCH, TIME)) < 0.3
ENGINES = ("tiled", "dense", "pallas")
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


def assert_engine_is_scan(cell, x, mask, weights, carry, rtol=1e-5, **options):
    narrow = jax.tree.map(lambda a: jnp.asarray(a, x.dtype), (weights, carry))
    scanned, *others = (
        run_and_pull(cell, x, mask, *narrow, method, **options) for method in ("scan", *ENGINES)
    )
    for other in others:
        assert_same(other, scanned, rtol)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("cell", CELLS)
def test_it_is_the_scan(cell, name, reverse):
    poisoned = X if MASKS[name] is None else np.where(MASKS[name][..., None], X, np.nan)
    poisoned = poisoned.astype(np.float32)
    assert_engine_is_scan(
        cell, poisoned, MASKS[name], weights_of(cell), carry_of(cell), reverse=reverse
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["none", "right", "holes", "empty"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "relu"])
def test_resets(cell, name, reverse):
    assert_engine_is_scan(
        cell, X, MASKS[name], weights_of(cell), carry_of(cell), reverse=reverse, resets=RESETS
    )


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_segments(cell):
    ids = np.array([[1] * 4 + [2] * 5 + [0] * 2, [0, 1, 1, 0, 3, 3, 3, 0, 0, 2, 2]], np.int32)
    mask = jm.Segments(jnp.asarray(ids), 3)
    assert_engine_is_scan(cell, X[:2], mask, weights_of(cell), carry_of(cell, 2))


@pytest.mark.parametrize("tiles", [((1,), 2), ((2, 4), 3), ((3,), 11), ((8,), 4), ((1, 2, 7), 1)])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_any_tile_gives_the_same(cell, tiles, monkeypatch):
    monkeypatch.setattr(methods, "tiles_for", lambda *sizes: Tiles(*tiles))
    run_and_pull.clear_cache()  # what is compiled knows other tiles
    assert_engine_is_scan(cell, X, RIGHT, weights_of(cell), carry_of(cell), resets=RESETS)
    run_and_pull.clear_cache()


@pytest.mark.parametrize("unroll", [4, 16])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["none", "holes"])
@pytest.mark.parametrize("cell", ["lstm", "gru with two biases", "relu"])
def test_several_steps_in_a_turn_give_the_same(cell, name, reverse, unroll, monkeypatch):
    """Those that fill up the last turn leave the state, wherever it comes from."""
    monkeypatch.setattr(methods, "one_tile", lambda batch, time: Tiles((batch,), 1, unroll))
    run_and_pull.clear_cache()
    options = {"reverse": reverse, "resets": RESETS}
    inputs = X, MASKS[name], weights_of(cell), carry_of(cell)
    dense, scanned = (run_and_pull(cell, *inputs, m, **options) for m in ("dense", "scan"))
    assert_same(dense, scanned)
    layer, _, more = CELLS[cell]
    alone, (y, _) = layer(*inputs, method="dense", **more, **options)  # keeps nothing
    assert_same((alone, y), scanned[0])
    run_and_pull.clear_cache()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_step_alone_is_not_dealt_to_slots(cell):
    layer, inputs = CELLS[cell][0], (X[:, :1], RIGHT[:, :1], weights_of(cell), carry_of(cell))
    assert_engine_is_scan(cell, *inputs, resets=RESETS[:, :1])
    alone, scanned = (layer(*inputs, method=method) for method in ("dense", "scan"))
    assert_same(alone, scanned)
    program = jax.make_jaxpr(lambda x: layer(x, *inputs[1:], method="dense"))(inputs[0])
    assert "sort" not in str(program)


@pytest.fixture
def three_numbers_of_slots(monkeypatch):
    """Of few rows the engine would make one tile."""
    monkeypatch.setattr(methods, "FEW", 1)
    monkeypatch.setattr(methods, "LEAST_SLOTS", 1)
    run_and_pull.clear_cache()  # what is compiled knows other tiles
    assert methods.tiles_for(BATCH, TIME).slots == (1, 3, 7)
    yield
    run_and_pull.clear_cache()


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_lengths_and_holes(data, three_numbers_of_slots):
    """One shape, hence one compile; the masks are whatever Hypothesis thinks of."""
    rows = st.lists(st.booleans(), min_size=TIME, max_size=TIME)
    bits = data.draw(st.lists(rows, min_size=BATCH, max_size=BATCH))
    resets = data.draw(st.lists(rows, min_size=BATCH, max_size=BATCH))
    options = {"reverse": data.draw(st.booleans()), "resets": np.array(resets)}
    assert_engine_is_scan(
        "lstm", X, np.array(bits), weights_of("lstm"), carry_of("lstm"), **options
    )


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


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(0, 12), min_size=9, max_size=9))
def test_every_chunk_is_dealt_once_and_in_order(lengths):
    tiles = Tiles((2, 4, 9), 3)
    real = jnp.arange(12) < jnp.array(lengths)[:, None]
    arranged = jax.jit(arrange, static_argnums=0)(tiles, real[None])
    dealt, (units, begins, numbers, used, _) = arranged.dealt, line_up(tiles, arranged)
    which = int(dealt.which[0])
    slots = tiles.slots[which]
    assert [int(n) > 0 for n in numbers] == [any(lengths) and i == which for i in range(3)]
    seen = {}
    for begin in np.asarray(begins[which])[: int(numbers[which])]:
        for unit in range(begin, begin + slots):
            row, is_first, left = (int(a[unit]) for a in units[:3])
            if left:
                seen.setdefault(row, []).append((left, unit))
                assert is_first == (left == lengths[row])
                steps = row * 12 + lengths[row] - left + np.arange(min(left, 3))
                np.testing.assert_array_equal(units.source[unit, : len(steps)], steps)
    for row, length in enumerate(lengths):
        first, chunks = int(dealt.first[0, row]), range(-(-length // 3))
        assert seen.get(row, []) == [(length - 3 * c, first + c * slots) for c in chunks]
    assert int(units.left[0]) == 0
    assert int(used[0]) == 1 + slots * int(dealt.rounds[0])


@pytest.mark.parametrize("states", [1, 2])
@pytest.mark.parametrize("member", [0, 2])
def test_no_gates_stand_where_something_else_does(states, member):
    tiles = Tiles((2, 5, 12), 4)
    room = room_for(tiles, units_for(tiles, batch=12, time=40), states, gates=4)
    for slots in tiles.slots[:-1]:
        for rounds in range(1, (room.states - 1) // slots + 1):
            taken = np.zeros(room.all, int)
            taken[: 1 + rounds * slots] += 1
            kept, size = [], slots * room.gates
            for turn in range(rounds):
                begin = member * room.states + 1 + turn * slots
                start, fits = at_gates(room, member, begin, slots, 1 + rounds * slots)
                start = int(start) - member * room.all
                kept.append(bool(fits))
                taken[start : start + size] += fits
                assert fits or start == room.all - size  # all in one place
            taken[room.all - size :] += not all(kept)
            assert taken.max() == 1
            assert kept == sorted(kept, reverse=True)
            # All, where as many steps are real as the smaller numbers of slots are chosen for.
            assert all(kept) or rounds * slots > (room.states - 1) * (0.37 if states == 2 else 0.2)


def test_a_row_without_a_step_passes_its_carry_on(three_numbers_of_slots):
    """There is a slot with nothing to do, whose unit is not that row's."""
    mask = np.arange(TIME) < np.array([[11, 9, 0, 0, 0, 0, 0]]).T
    arranged = arrange(methods.tiles_for(BATCH, TIME), jnp.asarray(mask[None]))
    assert arranged.dealt.which.tolist() == [1]
    for cell in ("lstm", "gru"):
        assert_engine_is_scan(cell, X, mask, weights_of(cell), carry_of(cell))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_rows_of_one_chunk_have_no_room_for_gates(cell, three_numbers_of_slots):
    x, mask = X[:, :2], np.arange(2) < np.array([[2, 0, 0, 1, 0, 0, 0]]).T
    assert_engine_is_scan(cell, x, mask, weights_of(cell), carry_of(cell))


def test_rows_that_do_not_fit_evenly_all_step_at_once():
    """49 rows of one length in 24 slots would take three turns, and more room than there is."""
    tiles, time = Tiles((8, 24, 64), 4), 40
    for rows, slots in ((48, 24), (49, 64)):
        real = jnp.broadcast_to(jnp.arange(64)[:, None] < rows, (64, time))
        arranged = arrange(tiles, real[None])
        assert tiles.slots[int(arranged.dealt.which[0])] == slots
        places = np.asarray(arranged.places[0])[:rows]
        assert len(np.unique(places)) == places.size
        assert places.max() < 4 * units_for(tiles, 64, time)


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


def test_members_choose_their_own_number_of_slots(three_numbers_of_slots):
    dealt = arrange(methods.tiles_for(BATCH, TIME), jnp.asarray(UNEVEN)).dealt
    assert dealt.which.tolist() == [0, 1, 2]
    weights = weights_of("lstm")

    def mapped(method):
        run = functools.partial(run_and_pull, "lstm", X, method=method)
        return jax.vmap(lambda mask: run(mask, weights, None))(UNEVEN)

    assert_same(mapped("tiled"), mapped("scan"))


def test_what_was_saved_one_by_one_may_be_pulled_back_together(three_numbers_of_slots):
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights_of("lstm"))

    def gradients(method):
        def run(mask):
            return jax.vjp(lambda w: jm.recurrent.lstm(X, mask, w, method=method)[1][0], weights)

        y, pull = jax.lax.map(run, UNEVEN)
        return jax.vmap(lambda pull, given: pull(given))(pull, jnp.cos(y))

    assert_same(gradients("tiled"), gradients("scan"))


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


@pytest.mark.parametrize("how", ["hessian", "reverse over reverse"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
def test_second_derivatives(cell, how):
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights_of(cell))

    def second(method):
        def of_bias(b):
            return loss_of(cell, method, weights._replace(b=b), X[:3])

        if how == "hessian":
            return jax.hessian(of_bias)(weights.b)
        direction = jnp.cos(jnp.arange(weights.b.size, dtype=jnp.float32))
        return jax.grad(lambda b: jax.grad(of_bias)(b).ravel() @ direction)(weights.b)

    scanned = second("scan")
    for method in ENGINES:
        assert_same(second(method), scanned, rtol=1e-4)


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


# ------------------------------------------------------------------------------ on the chip


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_tiles_and_chunks_of_the_kernel(cell, reverse, monkeypatch):
    """Rows that do not fill the last tile, steps that do not fill the last chunk."""
    monkeypatch.setattr(on_chip, "ROWS", 4)
    monkeypatch.setattr(on_chip, "STEPS", 3)
    run_and_pull.clear_cache()
    jax.clear_caches()  # the layer within is compiled too
    arguments = cell, X, RIGHT, weights_of(cell), carry_of(cell)
    assert_engine_is_scan(*arguments, resets=RESETS, reverse=reverse)
    run_and_pull.clear_cache()
    jax.clear_caches()


def test_the_kernel_computes_no_chunk_that_no_row_needs():
    def step(weights, state, x):
        return (state[0] + x @ weights,), state[0] + 1

    time = 3 * on_chip.STEPS
    needed = np.ones((time, 2), bool)
    needed[on_chip.STEPS : 2 * on_chip.STEPS] = False
    x = np.where(needed[..., None], 1.0, np.nan).astype(np.float32)
    ends, out = on_chip.scan(step, jnp.ones((1, 1)), (jnp.zeros((2, 1)),), x, jnp.asarray(needed))
    np.testing.assert_array_equal(ends[0], [[2.0 * on_chip.STEPS]] * 2)
    expected = np.where(needed[:, 0], np.cumsum(needed[:, 0]), 0)
    np.testing.assert_array_equal(out[:, 0, 0], expected)


# ------------------------------------------------------------------------------ the choice


@pytest.mark.parametrize(
    ("rows", "full", "method"),
    [
        (methods.FEW + 1, False, "tiled"),
        (methods.FEW, False, "dense"),
        (methods.FEW + 1, True, "dense"),
    ],
)
def test_auto_takes_the_engine_for_a_real_layer(rows, full, method):
    draw, time, hidden = np.random.default_rng(0), methods.LEAST_TIME, methods.LEAST_HIDDEN_FULL
    x = jnp.asarray(draw.normal(size=(rows, time, 8)), jnp.float32)
    mask = None if full else np.arange(time) < draw.integers(0, time, (rows, 1))
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), weights_of("lstm", 8, hidden))
    assert jm.recurrent.explain(rows, time, hidden, full=full).method == method
    program = str(jax.make_jaxpr(lambda x: jm.recurrent.lstm(x, mask, weights))(x))
    assert "custom_vmap" in program
    auto, scanned = (run_and_pull("lstm", x, mask, weights, None, m) for m in ("auto", "scan"))
    assert_same(auto, scanned, rtol=1e-4)


def test_auto_takes_the_scan_where_it_is_faster():
    rows, time, hidden = methods.FEW + 1, methods.LEAST_TIME, methods.LEAST_HIDDEN
    for short in ((rows, time - 1, hidden), (rows, time, hidden - 1), (1, time, hidden - 1)):
        assert jm.recurrent.explain(*short).method == "scan"
    assert jm.recurrent.explain(rows, time, hidden, full=True).method == "scan"


@pytest.mark.parametrize(
    ("backend", "method", "unroll"), [("gpu", "dense", methods.UNROLL), ("tpu", "scan", None)]
)
def test_auto_on_an_accelerator(backend, method, unroll, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    chosen = jm.recurrent.explain(64, 128, 256)
    assert chosen.method == method
    assert unroll is None or chosen.tiles == Tiles((64,), methods.STEPS, unroll)
    assert jm.recurrent.explain(64, 128, 256, cell="gru", reset_after=False).method == "scan"


def test_packed_rows_are_full():
    ids = jnp.ones((2, 3), jnp.int32)
    assert methods.is_full(jm.Segments(ids, 1), None)
    assert methods.is_full(ids > 0, ids)
    assert not methods.is_full(ids > 0, None)


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
    assert "symbolic" in jm.recurrent.explain(batch, time, 64).reason
    with pytest.raises(ValueError, match="symbolic"):
        jax.eval_shape(lambda x: jm.recurrent.lstm(x, None, weights, method="tiled"), x)
    with pytest.raises(ValueError, match="symbolic"):
        jax.eval_shape(lambda x: jm.recurrent.lstm(x, None, weights, method="dense"), x)


def test_a_mesh_takes_the_scan_and_shard_map_the_engine():
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    with jax.set_mesh(mesh):
        choice = jm.recurrent.explain(80, methods.LEAST_TIME, 64)
    assert choice.method == "scan"
    assert "shard_map" in choice.reason
    inside = []

    def look(x):
        inside.append(jm.recurrent.explain(80, methods.LEAST_TIME, 64).method)
        return x

    rows = PartitionSpec("rows")
    look = jax.shard_map(look, mesh=mesh, in_specs=rows, out_specs=rows)
    jax.jit(look)(jnp.zeros(len(jax.devices())))
    assert inside == ["tiled"]


def test_a_gru_that_resets_before_takes_the_scan():
    assert (
        jm.recurrent.explain(8, methods.LEAST_TIME, 64, cell="gru", reset_after=False).method
        == "scan"
    )
    with pytest.raises(ValueError, match="two products in a row"):
        jm.recurrent.gru(X, RIGHT, weights_of("gru"), reset_after=False, method="tiled")
