"""Modules where Flax users put them: transforms, optimisers, checkpoints, Linen, meshes."""

import inspect
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen, nnx
from jax.sharding import NamedSharding, PartitionSpec

import jaxmask as jm

IDS, MASK = jm.pad_sequences([[3, 1, 4, 1, 5], [2, 7], [], [1, 8, 2]])
LABELS = np.array([0, 1, 0, 1])


def make(rngs=None):
    rngs = nnx.Rngs(0) if rngs is None else rngs
    return jm.nn.Sequential(
        jm.nn.Embed(10, 8, rngs=rngs),
        jm.nn.Bidirectional(jm.nn.LSTM(8, 4, rngs=rngs), jm.nn.LSTM(8, 4, rngs=rngs)),
        nnx.LayerNorm(8, rngs=rngs),
        jm.nn.AttentionPool(8, rngs=rngs),
        nnx.Linear(8, 2, rngs=rngs),
    )


def loss_of(model, ids, mask):
    logits, rows = model(ids, mask)
    return jm.losses.reduce(
        *jm.losses.softmax_cross_entropy_with_integer_labels(logits, rows, jnp.asarray(LABELS))
    )


def test_trains_under_nnx_transforms():
    model = make()
    optimizer = nnx.Optimizer(model, optax.adam(0.02), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, ids, mask):
        loss, gradients = nnx.value_and_grad(loss_of)(model, ids, mask)
        optimizer.update(model, gradients)
        return loss

    losses = [float(step(model, optimizer, IDS, MASK)) for _ in range(40)]
    assert losses[-1] < 0.05 < losses[0]


def test_jit_and_grad_of_jax_alone():
    """Closed over, passed as an argument, and split by hand: one loss, one gradient."""
    model = make()
    expected, gradients = nnx.value_and_grad(loss_of)(model, IDS, MASK)
    graph, state = nnx.split(model)

    def of_state(state):
        return loss_of(nnx.merge(graph, state), IDS, MASK)

    value, by_hand = jax.jit(jax.value_and_grad(of_state))(state)
    closed = jax.jit(lambda ids: loss_of(model, ids, MASK))(IDS)
    passed = jax.jit(loss_of)(model, IDS, MASK)
    for other in (value, closed, passed):
        np.testing.assert_allclose(other, expected, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(by_hand), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_gradient_of_a_pair_by_its_values():
    """`jax.grad` of a pair fails on the boolean leaf: values first, the mask as `has_aux`."""
    model = make()
    embedded, mask = model.layers[0](IDS, MASK)
    lstm = model.layers[1]

    def values(x):
        y, mask = lstm(x, mask_given)
        return jnp.sum(y), mask

    mask_given = mask
    gradient, mask_out = jax.grad(values, has_aux=True)(embedded)
    assert not np.asarray(gradient)[~MASK].any()
    np.testing.assert_array_equal(mask_out, MASK)


def test_survives_a_checkpoint(tmp_path):
    model = make()
    graph, state = nnx.split(model)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "model", state)
    _, other = nnx.split(make(nnx.Rngs(99)))
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "model", other)
    np.testing.assert_array_equal(nnx.merge(graph, restored)(IDS, MASK)[0], model(IDS, MASK)[0])


def test_a_checkpoint_keeps_statistics_and_random_streams(tmp_path):
    """As `docs/start.md` saves a model: `nnx.state(model)` is all of it."""

    def made(seed):
        rngs = nnx.Rngs(seed)
        return jm.nn.Sequential(jm.nn.BatchNorm(2, rngs=rngs), jm.nn.Dropout(0.5, rngs=rngs))

    x, mask = np.arange(12.0, dtype=np.float32).reshape(2, 3, 2), MASK[:2, :3]
    model, other = made(0), made(1)
    model(x, mask)  # moves the statistics, and draws once
    with ocp.StandardCheckpointer() as keeper:
        for _ in range(2):  # a second run replaces what the first one kept
            keeper.save(tmp_path / "kept", nnx.state(model), force=True)
            keeper.wait_until_finished()
        nnx.update(other, keeper.restore(tmp_path / "kept", nnx.state(other)))
    np.testing.assert_array_equal(other(x, mask)[0], model(x, mask)[0])  # the same noise
    model.eval(), other.eval()
    np.testing.assert_array_equal(other(x, mask)[0], model(x, mask)[0])


def test_joins_a_linen_model():
    class Model(linen.Module):
        @linen.compact
        def __call__(self, ids, mask):
            x, mask = nnx.bridge.to_linen(jm.nn.Embed, 10, 8)(ids, mask)
            x, mask = nnx.bridge.to_linen(jm.nn.LSTM, 8, 4)(x, mask)
            x, mask = nnx.bridge.to_linen(jm.nn.GlobalMeanPool, skip_rng=True)(x, mask)
            return linen.Dense(2)(x), mask

    model = Model()
    variables = model.init(jax.random.key(0), IDS, MASK)
    _logits, rows = jax.jit(model.apply)(variables, IDS, MASK)
    assert rows.tolist() == [True, True, False, True]

    def loss(variables, ids):
        logits, rows = model.apply(variables, ids, MASK)
        return jnp.sum(jnp.where(rows[:, None], logits, 0) ** 2)

    gradients = jax.grad(loss)(variables, IDS)
    poisoned = jax.grad(loss)(variables, np.where(MASK, IDS, 9))
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(poisoned), strict=True):
        np.testing.assert_array_equal(a, b)


def test_linen_linear_after_the_bridge_needs_no_nan_care():
    """The values at empty rows are 0, so a foreign layer behind a jaxmask one sees no nan."""
    x, rows = jm.nn.GlobalMeanPool()(jnp.full((2, 3, 4), jnp.nan), jnp.zeros((2, 3), bool))
    assert np.isfinite(np.asarray(x)).all()
    assert rows.tolist() == [False, False]


def test_batch_sharded_over_a_mesh():
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("rows"))
    ids, mask = jax.device_put((IDS, MASK), sharding)
    model = make()
    value = jax.jit(lambda ids, mask: loss_of(model, ids, mask))(ids, mask)
    np.testing.assert_allclose(value, loss_of(model, IDS, MASK), rtol=1e-6)


def test_batch_sharded_over_a_mesh_of_explicit_axes():
    """As `jax.make_mesh` makes it, where JAX wants to know how each gather is spread."""
    mesh = jax.sharding.AbstractMesh((4,), ("rows",), (jax.sharding.AxisType.Explicit,))
    sharding = NamedSharding(mesh, PartitionSpec("rows"))
    ids = jax.ShapeDtypeStruct((4, 6), jnp.int32, sharding=sharding)
    rngs = nnx.Rngs(0)
    model = jm.nn.Sequential(
        jm.nn.Embed(5, 4, mask_zero=True, rngs=rngs),
        jm.nn.LearnedPositions(6, 4, rngs=rngs),
        jm.nn.Dropout(0.5, rngs=rngs),
        nnx.Linear(4, 4, rngs=rngs),
        jm.nn.LSTM(4, 4, rngs=rngs),
    )

    def loss(x, ids):
        y, mask = model(ids, rngs=nnx.Rngs(1))
        return jnp.sum(y * x), mask

    x = jax.ShapeDtypeStruct((4, 6, 4), jnp.float32, sharding=sharding)
    gradient, mask = jax.eval_shape(jax.grad(loss, has_aux=True), x, ids)
    assert gradient.sharding.spec[0] == mask.sharding.spec[0] == "rows"


def test_parameters_keep_their_sharding_metadata():
    init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
    mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        layer = jm.nn.LSTM(3, 4, kernel_init=init, rngs=nnx.Rngs(0))
    metadata = layer.w_x.get_metadata()
    assert (None, "model") in metadata.values()


def test_half_precision_modules():
    layer = jm.nn.LSTM(3, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    y, _ = layer(jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool))
    assert y.dtype == jnp.bfloat16
    assert layer.w_x.dtype == jnp.float32
    carry, _ = layer.run(layer.initial_carry(2), jnp.ones((2, 5, 3)))
    assert carry.h.dtype == jnp.float32


def test_run_goes_on_from_a_carry_under_a_mask():
    """Keras ignores the mask as soon as an initial state is given."""
    layer = jm.nn.LSTM(3, 4, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 3)), jnp.float32)
    mask = jnp.array([[True, True, False, False]])
    carry = jax.tree.map(jnp.ones_like, layer.initial_carry(1))
    out, _ = layer.run(carry, x, mask)
    alone, _ = layer.run(carry, x[:, :2])
    np.testing.assert_allclose(out.h, alone.h, atol=1e-6)


@pytest.mark.parametrize("kind", [jm.nn.LSTM, jm.nn.GRU, jm.nn.SimpleRNN])
def test_recurrent_modules_document_all_options(kind):
    parameters = inspect.signature(kind.__init__).parameters
    assert list(parameters)[1:3] == ["in_features", "hidden_features"]
    documented = [name for name in parameters if name not in ("self", "options")]
    if kind is jm.nn.LSTM:
        documented += typing.get_type_hints(kind.__init__)["options"].__args__[0].__annotations__
    for name in documented:
        assert re.search(rf"\b{name}\b", kind.__doc__), f"{name} is not in the docstring"
    with pytest.raises(TypeError, match="units"):
        kind(3, 4, units=4, rngs=nnx.Rngs(0))


def test_bidirectional_refuses_a_reversed_forward():
    rngs = nnx.Rngs(0)
    forward, backward = (jm.nn.LSTM(3, 4, reverse=r, rngs=rngs) for r in (True, False))
    with pytest.raises(ValueError, match="reverse=True"):
        jm.nn.Bidirectional(forward, backward)
    with pytest.raises(ValueError, match="merge"):
        jm.nn.Bidirectional(backward, backward, merge="max")


def test_bidirectional_runs_the_second_in_reverse_whatever_its_flag():
    x, mask = jnp.ones((1, 3, 3)).cumsum(1), jnp.ones((1, 3), bool)
    results = []
    for flag in (True, False):
        rngs = nnx.Rngs(0)
        pair = jm.nn.LSTM(3, 4, rngs=rngs), jm.nn.LSTM(3, 4, reverse=flag, rngs=rngs)
        results.append(jm.nn.Bidirectional(*pair)(x, mask)[0])
    np.testing.assert_array_equal(*results)


def test_bidirectional_without_merging():
    rngs = nnx.Rngs(0)
    layer = jm.nn.Bidirectional(jm.nn.LSTM(3, 4, rngs=rngs), jm.nn.LSTM(3, 5, rngs=rngs), None)
    (forward, backward), mask = layer(jnp.ones((2, 3, 3)), jnp.ones((2, 3), bool))
    assert forward.shape == (2, 3, 4)
    assert backward.shape == (2, 3, 5)
    assert mask.shape == (2, 3)


def test_embed_checks_ids_where_they_can_be_seen():
    embed = jm.nn.Embed(5, 2, rngs=nnx.Rngs(0))
    for ids in (np.array([[5]]), jnp.array([[-1]])):
        with pytest.raises(ValueError, match=r"0\.\.4"):
            embed(ids)
    # At padding anything may stand; under jit a bad id is at least visible.
    assert np.isfinite(embed(np.array([[5, 1]]), np.array([[False, True]]))[0]).all()
    y, _ = jax.jit(lambda ids: embed(ids))(jnp.array([[5, -1, 4]]))
    assert np.isnan(np.asarray(y)).all(-1).tolist() == [[True, True, False]]
    with pytest.raises(TypeError, match="integers"):
        embed(np.zeros((1, 2)))


def test_embed_with_mask_zero_keeps_the_mask_that_came_in():
    embed = jm.nn.Embed(5, 2, mask_zero=True, rngs=nnx.Rngs(0))
    ids = np.array([[1, 2, 0, 3]])
    mask = np.array([[True, True, True, False]])
    assert embed(ids, mask)[1].tolist() == [[True, True, False, False]]
    assert embed(ids)[1].tolist() == [[True, True, False, True]]


def test_masking_finds_nan_and_keeps_the_mask_that_came_in():
    x = np.array([[[1.0], [np.nan], [3.0]]], np.float32)
    mask = np.array([[True, True, False]])
    y, out = jm.nn.Masking(np.nan)(x, mask)
    assert out.tolist() == [[True, False, False]]
    assert y.ravel().tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_a_training_step_lowers_for_every_platform(platform):
    graph, state = nnx.split(make())

    def step(state, ids, mask):
        return jax.grad(lambda s: loss_of(nnx.merge(graph, s), ids, mask))(state)

    jax.export.export(jax.jit(step), platforms=[platform])(state, IDS, MASK)
