"""What a call says reaches every layer, inside every wrapper, in calls and in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32))
MASK = jnp.array([[True, True, True, False], [True, True, False, False]])


class OneRow(nnx.Module):
    """A plain module of one row that is given its streams when it is called."""

    def __init__(self):
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x, *, rngs=None, deterministic=None):
        return self.dropout(x, rngs=rngs, deterministic=deterministic)


class Foreign(nnx.Module):
    """A module that is told nothing when it is called, and draws from streams of its own."""

    def __init__(self):
        self.linear = nnx.Linear(6, 6, rngs=nnx.Rngs(0))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.dropout(self.linear(x))


class ForeignMasked(Foreign):
    def __call__(self, x, mask):
        return super().__call__(x), mask


class NoisyCell(nnx.Module):
    """A cell of somebody else, with dropout on its input."""

    in_features, num_feature_axes = 6, 1

    def __init__(self, rngs=None):
        self.cell = nnx.GRUCell(6, 6, rngs=nnx.Rngs(0))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def initialize_carry(self, input_shape, rngs=None):
        return self.cell.initialize_carry(input_shape, rngs)

    def __call__(self, carry, x):
        return self.cell(carry, self.dropout(x))


class ToldNoisyCell(NoisyCell):
    """One that is given its streams when it is called."""

    def __call__(self, carry, x, *, rngs=None):
        return self.cell(carry, self.dropout(x, rngs=rngs))


def own_function(x, mask, *, rngs=None, row_ids=None, deterministic=None):
    return jm.nn.Dropout(0.5)(x, mask, rngs=rngs, row_ids=row_ids, deterministic=deterministic)


def zoneout():
    """No stream of its own is ever drawn from: that is what the tests look at."""
    rngs = nnx.Rngs(0)
    return jm.nn.RNN(jm.nn.ZoneoutCell(nnx.GRUCell(6, 6, rngs=rngs), 0.5, rngs=rngs))


def attention():
    return jm.nn.MultiHeadAttention(2, 6, dropout_rate=0.5, rngs=nnx.Rngs(0))


def block():
    return jm.nn.TransformerEncoderBlock(2, 6, dropout_rate=0.5, rngs=nnx.Rngs(0))


NOISY = {
    "nnx.Dropout": lambda: nnx.Dropout(0.5),
    "Dropout": lambda: jm.nn.Dropout(0.5),
    "SpatialDropout": lambda: jm.nn.SpatialDropout(0.5),
    "GaussianNoise": lambda: jm.nn.GaussianNoise(0.5),
    "TimeMasking": lambda: jm.nn.TimeMasking(9, num_masks=3),
    "FeatureMasking": lambda: jm.nn.FeatureMasking(5, num_masks=3),
    "Passthrough(nnx.Dropout)": lambda: jm.nn.Passthrough(nnx.Dropout(0.5)),
    "RaggedVmap": lambda: jm.nn.RaggedVmap(OneRow()),
    "a function": lambda: own_function,
    "Passthrough(a module)": lambda: jm.nn.Passthrough(Foreign()),
    "a masked module": ForeignMasked,
    "zoneout": zoneout,
    "a cell with noise": lambda: jm.nn.RNN(NoisyCell(nnx.Rngs(0))),
    "a cell that takes rngs": lambda: jm.nn.RNN(ToldNoisyCell()),
    "attention": attention,
    "block": block,
}


def stacked(layer):
    return jm.nn.StackedRNN(layer, jm.nn.GRU(6, 6, rngs=nnx.Rngs(0)))


def stacked_with_dropout(layer):
    rngs = nnx.Rngs(0)
    return jm.nn.StackedRNN(layer, jm.nn.GRU(6, 6, rngs=rngs), dropout_rate=0.5, rngs=rngs)


def consumed(layer):
    def f(x, mask, **options):
        return jm.nn.Sequential(layer)(x, mask, **options)[0]

    return jm.nn.Consume(f)


WRAPPERS = {
    "Sequential": jm.nn.Sequential,
    "Sequential twice": lambda layer: jm.nn.Sequential(jm.nn.Sequential(layer)),
    "Residual": jm.nn.Residual,
    "StackedRNN": stacked,
    "StackedRNN, dropout": stacked_with_dropout,
    "Bidirectional": lambda layer: jm.nn.Bidirectional(layer, jm.nn.GRU(6, 6, rngs=nnx.Rngs(0))),
    "Bidirectional, backward": lambda layer: jm.nn.Bidirectional(
        jm.nn.GRU(6, 6, rngs=nnx.Rngs(0)), layer
    ),
    "TimeDistributed": jm.nn.TimeDistributed,
    "SpectralNorm": lambda layer: jm.nn.SpectralNorm(jm.nn.Residual(layer), rngs=nnx.Rngs(0)),
    "Consume": consumed,
    "deep": lambda layer: jm.nn.Residual(
        jm.nn.StackedRNN(jm.nn.SpectralNorm(jm.nn.Sequential(layer), rngs=nnx.Rngs(0)))
    ),
}
UNKEYED = ("Passthrough(a module)", "a masked module")  # noise that no row id reaches
MODULES = [name for name in WRAPPERS if name != "Consume"]  # it wraps a closure of the test
DROPOUTS = ("Dropout", "Passthrough(a module)")
EVERY_PAIR = [
    *((wrapper, noisy) for wrapper in WRAPPERS for noisy in DROPOUTS),
    *(("Residual", noisy) for noisy in NOISY if noisy not in DROPOUTS),
]


def inputs(wrapper):
    return (X[:, None], MASK[:, None]) if wrapper == "TimeDistributed" else (X, MASK)


def first(pair):
    return np.asarray(jax.tree.leaves(pair)[0])


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("wrapper", "noisy"), EVERY_PAIR)
def test_options_reach_a_layer_inside_a_wrapper(wrapper, noisy):
    model, pair = jm.nn.Sequential(WRAPPERS[wrapper](NOISY[noisy]())), inputs(wrapper)

    def call(**options):
        # A copy, since `SpectralNorm` goes on with its statistics.
        return first(nnx.clone(model)(*pair, **options))

    once, again, other = (call(rngs=nnx.Rngs(dropout=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any(), "rngs"
    if noisy not in UNKEYED:
        moved = call(rngs=nnx.Rngs(dropout=0), row_ids=jnp.array([7, 8]))
        assert (once != moved).any(), "row_ids"
    assert (once != call(deterministic=True)).any(), "deterministic"


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_rngs_given_leave_the_streams_of_the_layers_alone(wrapper):
    layer = WRAPPERS[wrapper](jm.nn.Dropout(0.5, rngs=nnx.Rngs(0)))
    before = jax.tree.leaves(nnx.state(layer, nnx.RngCount))
    before = [np.asarray(count) for count in before]
    layer(*inputs(wrapper), rngs=nnx.Rngs(1), deterministic=None)
    after = jax.tree.leaves(nnx.state(layer, nnx.RngCount))
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("noisy", UNKEYED)
def test_rngs_given_leave_the_streams_of_foreign_modules_alone(noisy):
    model = jm.nn.Sequential(NOISY[noisy]())
    before = [np.asarray(count) for count in jax.tree.leaves(nnx.state(model, nnx.RngCount))]
    model(X, MASK, rngs=nnx.Rngs(1))
    after = jax.tree.leaves(nnx.state(model, nnx.RngCount))
    np.testing.assert_array_equal(before, after)
    assert (first(model(X, MASK)) != first(model(X, MASK))).any()


def test_the_noise_of_a_cell_is_keyed_by_row_and_real_step():
    """Padding, chunks and the order of rows do not change it, and each step has its own."""
    layer = jm.nn.RNN(NoisyCell(nnx.Rngs(0)))
    ids, streams = jnp.array([4, 7]), lambda: nnx.Rngs(1)
    y, _ = layer(X, MASK, rngs=streams(), row_ids=ids)
    left = jnp.pad(X, [(0, 0), (2, 0), (0, 0)]), jnp.pad(MASK, [(0, 0), (2, 0)])
    np.testing.assert_array_equal(layer(*left, rngs=streams(), row_ids=ids)[0][:, 2:], y)
    other, _ = layer(X[::-1], MASK[::-1], rngs=streams(), row_ids=ids[::-1])
    np.testing.assert_array_equal(other[::-1], y)
    carry = layer.initial_carry(2, rngs=streams(), row_ids=ids)
    carry, (first_half, _) = layer.run(carry, X[:, :2], MASK[:, :2])
    _, (second_half, _) = layer.run(carry, X[:, 2:], MASK[:, 2:])
    np.testing.assert_array_equal(jnp.concatenate([first_half, second_half], axis=1), y)
    dropped = jm.nn.RNN(NoisyCell(nnx.Rngs(0)))
    dropped.cell.initialize_carry = lambda shape, rngs=None: jnp.zeros((shape[0], 6))
    dropped.cell.cell = lambda carry, x: (carry, x)
    kept = np.asarray(dropped(jnp.ones((2, 4, 6)), rngs=streams())[0]) != 0
    assert (kept[:, 0] != kept[:, 1]).any()
    assert (kept[0] != kept[1]).any()


def test_a_noisy_cell_without_noise_is_its_cell():
    noisy = jm.nn.RNN(NoisyCell(nnx.Rngs(0)))
    noisy.eval()
    expected = jm.nn.RNN(noisy.cell.cell)(X, MASK)[0]
    np.testing.assert_array_equal(jax.jit(lambda x: noisy(x, MASK)[0])(X), expected)
    noisy.train()
    assert (noisy(X, MASK)[0] != noisy(X, MASK)[0]).any()
    grads = nnx.grad(lambda layer: layer(X, MASK)[0].sum())(noisy)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    "wrapper", ["Sequential", "Residual", "StackedRNN", "SpectralNorm", "deep"]
)
def test_options_reach_a_layer_in_a_chunk(wrapper):
    model = WRAPPERS[wrapper](nnx.Dropout(0.5))

    def chunk(**options):
        copy = nnx.clone(model)
        return first(copy.run(copy.initial_carry(2), X, MASK, **options)[1])

    once, again, other = (chunk(rngs=nnx.Rngs(dropout=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
    assert (chunk(rngs=nnx.Rngs(dropout=0), row_ids=jnp.array([7, 8])) != once).any()
    assert (chunk(deterministic=True) != once).any()


def test_a_masked_noise_layer_runs_in_chunks_where_a_call_turns_it_off():
    model = jm.nn.Sequential(jm.nn.Residual(jm.nn.Dropout(0.5)))
    with pytest.raises(jm.MaskError, match="chunk by chunk"):
        model.run(((),), X, MASK)
    _, (y, _) = model.run(((),), X, MASK, deterministic=True)
    np.testing.assert_array_equal(y, jnp.where(MASK[..., None], 2 * X, 0))


def test_the_carry_of_a_noisy_cell_is_drawn_from_the_streams_of_the_call():
    model = jm.nn.Sequential(jm.nn.Residual(zoneout()))
    seeds = [model.initial_carry(2, rngs=nnx.Rngs(dropout=k))[0].seed for k in (0, 0, 1)]
    np.testing.assert_array_equal(seeds[0], seeds[1])
    assert (seeds[0] != seeds[2]).all()
    named = model.initial_carry(2, rngs=nnx.Rngs(dropout=0), row_ids=jnp.array([1, 0]))[0].seed
    np.testing.assert_array_equal(named, seeds[0][::-1])


@pytest.mark.parametrize("wrapper", MODULES)
def test_statistics_are_left_alone_where_a_call_says_so(wrapper):
    model = WRAPPERS[wrapper](jm.nn.BatchNorm(6, rngs=nnx.Rngs(0)))
    before = jax.tree.map(np.asarray, nnx.state(model, nnx.BatchStat))
    model(*inputs(wrapper), use_running_average=True, rngs=nnx.Rngs(0))
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(model, nnx.BatchStat))
    model(*inputs(wrapper), rngs=nnx.Rngs(0))
    assert any(
        (old != new).any()
        for old, new in zip(
            jax.tree.leaves(before), jax.tree.leaves(nnx.state(model, nnx.BatchStat)), strict=True
        )
    )


@pytest.mark.parametrize("wrapper", MODULES)
def test_train_and_eval_reach_every_layer(wrapper):
    rngs = nnx.Rngs(0)
    inner = jm.nn.Sequential(nnx.Dropout(0.5, rngs=rngs), jm.nn.BatchNorm(6, rngs=rngs))
    model, pair = WRAPPERS[wrapper](inner), inputs(wrapper)
    model.eval()
    before = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
    np.testing.assert_array_equal(first(model(*pair)), first(model(*pair)))
    after = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), before, after)
    assert all(jax.tree.leaves(same))
    model.train()
    assert (first(model(*pair)) != first(model(*pair))).any()


@pytest.mark.parametrize("wrapper", MODULES)
def test_to_ask_for_a_mask_changes_no_stream_and_no_statistic(wrapper):
    """Not even where the layers have no streams of their own."""
    rngs = nnx.Rngs(0)
    noise = jm.nn.GaussianNoise(0.1, rngs=rngs), nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5)
    model = WRAPPERS[wrapper](jm.nn.Sequential(*noise, jm.nn.BatchNorm(6, rngs=rngs)))
    before = [
        np.asarray(jax.random.key_data(leaf) if "key" in str(leaf.dtype) else leaf)
        for leaf in jax.tree.leaves(nnx.state(model))
    ]
    mask = model.compute_mask(*inputs(wrapper))
    after = [
        np.asarray(jax.random.key_data(leaf) if "key" in str(leaf.dtype) else leaf)
        for leaf in jax.tree.leaves(nnx.state(model))
    ]
    jax.tree.map(np.testing.assert_array_equal, before, after)
    np.testing.assert_array_equal(mask, model(*inputs(wrapper), rngs=nnx.Rngs(1))[1])


def test_a_module_inside_consume_and_passthrough_is_switched_too():
    class Pool(nnx.Module):
        def __init__(self):
            self.dropout = jm.nn.Dropout(0.5, rngs=nnx.Rngs(0))

        def __call__(self, x, mask):
            return self.dropout(x, mask)[0].sum(1)

    for layer in (jm.nn.Consume(Pool()), jm.nn.Passthrough(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))):
        quiet = layer(X, MASK, deterministic=True)[0]
        assert (layer(X, MASK)[0] != quiet).any()
        layer.eval()
        np.testing.assert_array_equal(layer(X, MASK)[0], quiet)


def test_the_noise_of_a_sentence_does_not_depend_on_how_many_a_document_may_have():
    layer = jm.nn.TimeDistributed(nnx.Dropout(0.5))
    x, mask = jnp.stack([X, X], axis=1), jnp.stack([MASK, MASK], axis=1)
    wider = jnp.pad(x, [(0, 0), (0, 1), (0, 0), (0, 0)]), jnp.pad(mask, [(0, 0), (0, 1), (0, 0)])
    y = layer(x, mask, rngs=nnx.Rngs(0))[0]
    np.testing.assert_array_equal(layer(*wider, rngs=nnx.Rngs(0))[0][:, :2], y)
    ids = jnp.array([5, 9])
    moved = layer(x[::-1], mask[::-1], rngs=nnx.Rngs(0), row_ids=ids[::-1])[0][::-1]
    np.testing.assert_array_equal(layer(x, mask, rngs=nnx.Rngs(0), row_ids=ids)[0], moved)
    assert (y[:, 0] != y[:, 1]).any()


def test_the_noise_of_dropout_in_passthrough_is_keyed_by_real_steps():
    layer = jm.nn.Passthrough(nnx.Dropout(0.5))
    wider = jnp.pad(X, [(0, 0), (0, 3), (0, 0)]), jnp.pad(MASK, [(0, 0), (0, 3)])
    y = layer(X, MASK, rngs=nnx.Rngs(0))[0]
    np.testing.assert_array_equal(layer(*wider, rngs=nnx.Rngs(0))[0][:, :4], y)


def test_resets_reach_recurrent_layers_and_are_refused_by_what_mixes_episodes():
    gru, resets = jm.nn.GRU(6, 6, rngs=nnx.Rngs(0)), jnp.zeros((2, 4), bool).at[:, 1].set(True)
    expected = gru(X, MASK, resets=resets)[0]
    assert (expected != gru(X, MASK)[0]).any()
    noise = jm.nn.Dropout(0.0, rngs=nnx.Rngs(0))
    for layers in ((gru,), (jnp.copy, noise, gru), (jm.nn.Sequential(gru), noise)):
        model = jm.nn.Sequential(*(jm.nn.Passthrough(f) if f is jnp.copy else f for f in layers))
        np.testing.assert_array_equal(model(X, MASK, resets=resets)[0], expected)
        run = jm.nn.Sequential(gru)
        chunk = run.run(run.initial_carry(2), X, MASK, resets=resets)[1][0]
        np.testing.assert_array_equal(chunk, expected)
    mixing = (
        jm.nn.GlobalMeanPool(),
        attention(),
        jm.nn.Residual(block()),
        jm.nn.RaggedVmap(OneRow()),
        jm.nn.Conv1D(6, 6, 3, rngs=nnx.Rngs(0)),
        jm.nn.StackedRNN(jm.nn.MaxPool1D(2)),
    )
    for layer in mixing:
        with pytest.raises(TypeError, match="takes no `resets` and works over time"):
            jm.nn.Sequential(layer)(X, MASK, resets=resets)


def test_what_is_no_option_or_no_stream_is_an_error():
    model = jm.nn.Sequential(jm.nn.Residual(nnx.Dropout(0.5)))
    with pytest.raises(TypeError, match="no option `rng`; the options are rngs, row_ids"):
        model(X, MASK, rng=nnx.Rngs(0))
    with pytest.raises(TypeError, match="`rngs` must be"):
        model(X, MASK, rngs=0)
    with pytest.raises(ValueError, match="no stream `dropout`"):
        model(X, MASK, rngs=nnx.Rngs(params=0))
    with pytest.raises(ValueError, match="`row_ids` must be"):
        model(X, MASK, rngs=nnx.Rngs(0), row_ids=jnp.arange(3))
    with pytest.raises(ValueError, match="`row_ids` must be"):
        jm.nn.TimeDistributed(model)(X[:, None], MASK[:, None], row_ids=jnp.arange(4))


def test_one_key_gives_every_layer_a_noise_of_its_own():
    model = jm.nn.Sequential(nnx.Dropout(0.5), nnx.Dropout(0.5))
    ones = jnp.ones((2, 4, 100))
    y = np.asarray(model(ones, MASK, rngs=jax.random.key(0))[0])[np.asarray(MASK)]
    assert abs((y != 0).mean() - 0.25) < 0.1


def test_options_are_traced_like_any_argument():
    model = jm.nn.Sequential(jm.nn.Residual(nnx.Dropout(0.5)), jm.nn.BatchNorm(6, rngs=nnx.Rngs(0)))

    @nnx.jit
    def step(model, key, ids):
        return model(X, MASK, rngs=nnx.Rngs(key), row_ids=ids, use_running_average=True)[0]

    ids = jnp.array([3, 4])
    y = model(X, MASK, rngs=nnx.Rngs(jax.random.key(0)), row_ids=ids, use_running_average=True)[0]
    np.testing.assert_allclose(step(model, jax.random.key(0), ids), y, atol=1e-6)
