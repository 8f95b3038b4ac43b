"""Per-step losses, CTC, and the reduction of per-step values to a number."""

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmask as jm
from jaxmask import losses

# One row each: padded right, padded left, with a hole, empty.
MASK = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 0]], bool)

# The kind of inputs of each loss, and its options.
LOSSES = {
    "squared_error": ("real", {}),
    "l2_loss": ("real", {}),
    "huber_loss": ("real", {"delta": 0.7}),
    "log_cosh": ("real", {}),
    "cosine_similarity": ("real", {"epsilon": 0.0}),
    "cosine_distance": ("real", {"epsilon": 0.0}),
    "sigmoid_binary_cross_entropy": ("binary", {}),
    "sigmoid_focal_loss": ("binary", {"alpha": 0.3, "gamma": 1.5}),
    "sparsemax_loss": ("binary", {}),
    "hinge_loss": ("sign", {}),
    "perceptron_loss": ("sign", {}),
    "softmax_cross_entropy": ("classes", {}),
    "safe_softmax_cross_entropy": ("classes", {}),
    "poly_loss_cross_entropy": ("classes", {"epsilon": 1.5}),
    "kl_divergence": ("classes", {}),
    "generalized_kl_divergence": ("classes", {}),
    "kl_divergence_with_log_targets": ("logs", {}),
    "softmax_cross_entropy_with_integer_labels": ("ids", {}),
    "multiclass_hinge_loss": ("ids", {}),
    "multiclass_perceptron_loss": ("ids", {}),
    "multiclass_sparsemax_loss": ("ids", {}),
}
ELEMENTWISE = {"squared_error", "l2_loss", "huber_loss", "log_cosh"} | {
    name for name, (kind, _) in LOSSES.items() if kind in ("binary", "sign")
}
WITH_OPTIONS = [name for name, (_, options) in LOSSES.items() if options]


def log_softmax(x):
    x = x.astype(np.float64)
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


def inputs(name, leading=MASK.shape, classes=3):
    rng = np.random.default_rng(sum(map(ord, name)))
    logits = rng.normal(size=(*leading, classes)).astype(np.float32)
    other = rng.normal(size=logits.shape).astype(np.float32)
    log_p = log_softmax(other)
    targets = {
        "real": other,
        "binary": rng.integers(0, 2, logits.shape),
        "sign": 2 * rng.integers(0, 2, logits.shape) - 1,
        "classes": np.exp(log_p),
        "logs": log_p,
        "ids": rng.integers(0, classes, leading),
    }[LOSSES[name][0]]
    return logits, targets.astype(np.int32 if targets.dtype.kind == "i" else np.float32)


def apply(name, predictions, mask, targets):
    return getattr(losses, name)(predictions, mask, targets, **LOSSES[name][1])


def alone(name, predictions, targets):
    reference = getattr(optax.losses, name)
    if name == "multiclass_sparsemax_loss" and targets.ndim == 2:  # it takes one leading axis only
        return jnp.stack([reference(p, t) for p, t in zip(predictions, targets, strict=True)])
    return reference(predictions, targets, **LOSSES[name][1])


def poisoned(x, mask, how):
    """`x` with garbage where `mask` is False."""
    if x.dtype.kind == "f":
        garbage = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "huge": 3e38, "zero": 0.0}[how]
    else:
        garbage = {"nan": -100, "inf": 2**31 - 1, "-inf": -(2**31), "huge": 7, "zero": 0}[how]
    x = x.copy()
    x[~mask] = garbage
    return x


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(name, predictions, mask, targets, cotangent):
    """Per-step values, and the gradients in the predictions and in float targets."""
    if jnp.issubdtype(targets.dtype, jnp.floating):
        value, pull = jax.vjp(lambda p, t: apply(name, p, mask, t)[0], predictions, targets)
    else:
        value, pull = jax.vjp(lambda p: apply(name, p, mask, targets)[0], predictions)
    return value, *pull(cotangent)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient_alone(name, predictions, targets):
    value, pull = jax.vjp(lambda p: alone(name, p, targets), predictions)
    return value, *pull(jnp.ones_like(value))


def ones_for(name, predictions):
    shape = predictions.shape if name in ELEMENTWISE else predictions.shape[:-1]
    return np.ones(shape, np.float32)


@pytest.mark.parametrize("name", LOSSES)
def test_each_row_is_optax_on_that_row_alone(name):
    predictions, targets = inputs(name)
    ones = ones_for(name, predictions)
    value, gradient, *_ = value_and_gradients(name, predictions, MASK, targets, ones)
    assert value.shape == ones.shape
    for row, real in enumerate(MASK[:3]):
        theirs = value_and_gradient_alone(name, predictions[row][real], targets[row][real])
        np.testing.assert_allclose(value[row][real], theirs[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient[row][real], theirs[1], rtol=1e-5, atol=1e-6)
    assert np.all(np.asarray(value)[~MASK] == 0)
    assert np.all(np.asarray(gradient)[~MASK] == 0)


@pytest.mark.parametrize("name", LOSSES)
def test_garbage_in_the_padding_changes_no_bit(name):
    predictions, targets = inputs(name)
    ones = ones_for(name, predictions)
    clean = value_and_gradients(name, predictions, MASK, targets, ones)
    for how in ("nan", "inf", "-inf", "huge", "zero"):
        dirty = value_and_gradients(
            name,
            poisoned(predictions, MASK, how),
            MASK,
            poisoned(targets, MASK, how),
            poisoned(ones, MASK, how),
        )
        for one, other in zip(clean, dirty, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_gradients_in_options_do_not_see_the_padding(name):
    # The gradient of an option adds up over all steps: the one place where an unsafe filler shows.
    predictions, targets = inputs(name)
    options = LOSSES[name][1]

    def total(options, p, t):
        return jnp.sum(getattr(losses, name)(p, MASK, t, **options)[0])

    def total_alone(options):
        reference = getattr(optax.losses, name)
        return jnp.sum(reference(predictions[MASK], targets[MASK], **options))

    expected = jax.jit(jax.grad(total_alone))(options)
    gradient = jax.jit(jax.grad(total))
    for how in ("nan", "zero"):
        found = gradient(options, poisoned(predictions, MASK, how), poisoned(targets, MASK, how))
        for key, value in found.items():
            np.testing.assert_allclose(value, expected[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_every_kind_of_mask_selects_from_what_optax_gives_with_and_without_jit(name):
    predictions, targets = inputs(name)
    everything = np.asarray(alone(name, predictions, targets))
    segments = jm.Segments(jnp.asarray(MASK, jnp.int32) * 2, max_segments=2)
    for mask, real in [
        (None, np.ones_like(MASK)),
        (MASK, MASK),
        (segments, MASK),
        (MASK[:, 0], np.repeat(MASK[:, :1], 3, axis=1)),
    ]:
        value, same = apply(name, predictions, mask, targets)
        assert type(same) is type(mask) or same.shape == mask.shape
        jax.tree.map(np.testing.assert_array_equal, same, mask)
        np.testing.assert_array_equal(value[real], everything[real])
        assert np.all(np.asarray(value)[~real] == 0)
    ones = ones_for(name, predictions)
    jitted, *_ = value_and_gradients(name, predictions, MASK, targets, ones)
    np.testing.assert_allclose(jitted[MASK], everything[MASK], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_batches_without_a_real_step_without_rows_and_without_time(name):
    predictions, targets = inputs(name)
    nothing = np.zeros_like(MASK)
    found = value_and_gradients(
        name,
        poisoned(predictions, nothing, "nan"),
        nothing,
        poisoned(targets, nothing, "nan"),
        ones_for(name, predictions),
    )
    for array in found:
        assert np.all(np.asarray(array) == 0)
    for leading in ((0, 3), (2, 0)):
        mask = np.zeros(leading, bool)
        predictions, targets = inputs(name, leading)
        value, mask = jax.eval_shape(functools.partial(apply, name), predictions, mask, targets)
        assert value.shape[:2] == mask.shape == leading


@pytest.mark.parametrize("name", LOSSES)
def test_the_dtype_is_that_of_optax(name):
    predictions, targets = inputs(name)
    predictions = jnp.asarray(predictions, jnp.bfloat16)
    if targets.dtype.kind == "f":
        targets = jnp.asarray(targets, jnp.bfloat16)
    ours, _ = jax.eval_shape(functools.partial(apply, name), predictions, MASK, targets)
    theirs = jax.eval_shape(functools.partial(alone, name), predictions[0], targets[0])
    assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("name", LOSSES)
def test_public_functions_look_like_those_of_optax(name):
    function = getattr(losses, name)
    assert name in losses.__all__
    assert inspect.isfunction(function)
    assert (function.__name__, inspect.unwrap(function)) == (name, function)
    first, *options = inspect.signature(function).parameters.items()
    assert [first[0], *(key for key, _ in options[:2])] == ["predictions", "mask", "targets"]
    theirs = inspect.signature(getattr(optax.losses, name)).parameters
    for key, parameter in options[2:]:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default == theirs[key].default
    assert {key for key, _ in options[2:]} == set(LOSSES[name][1])
    for section in ("Args:", "Returns:", "Raises:", "Example:", f"optax.losses.{name}"):
        assert section in function.__doc__


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_is_broadcast(name):
    predictions, targets = inputs(name)
    loss = getattr(losses, name)
    wrong = [targets[:1], targets[:, :1], targets[:, 0], targets[0], targets[..., None]]
    for bad in wrong:
        with pytest.raises(ValueError, match=f"{name}: `targets` must be the shape of"):
            loss(predictions, MASK, bad)
    for bad in (MASK[:1], MASK[:, :1], MASK.T):
        with pytest.raises(jm.MaskError, match=f"{name}: `mask`"):
            loss(predictions, bad, targets)
    with pytest.raises(TypeError, match=f"{name}: `mask` must be boolean"):
        loss(predictions, MASK.astype(np.float32), targets)
    with pytest.raises(TypeError, match=f"{name}: `predictions` must be floating"):
        loss(predictions.astype(np.int32), MASK, targets)
    with pytest.raises(TypeError, match=f"{name}: `targets` must be an array"):
        loss(predictions, MASK, (targets, MASK))
    with pytest.raises(TypeError, match=f"{name}: `predictions` must be a JAX or NumPy array"):
        loss(predictions.tolist(), MASK, targets)


def test_a_target_a_row_does_not_pass_for_a_target_a_step():
    # Keras squeezes or expands a trailing axis of 1, and takes [batch] for [time] if they agree.
    square = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match="squared_error: `targets` must be the shape of"):
        losses.squared_error(square, np.ones((3, 3), bool), square[0])
    with pytest.raises(ValueError, match=r"= \(3, 3, 1\), got \(3, 3\)"):
        losses.squared_error(square[..., None], np.ones((3, 3), bool), square)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - ELEMENTWISE))
def test_losses_of_vectors_do_not_compare_along_time(name):
    ids = LOSSES[name][0] == "ids"
    targets = np.zeros(4, np.int32) if ids else np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match=f"{name}: `predictions` must have an axis after"):
        getattr(losses, name)(np.zeros((4, 3), np.float32), np.ones((4, 3), bool), targets)


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_options_are_scalars(name):
    predictions, targets = inputs(name)
    for option in LOSSES[name][1]:
        with pytest.raises(ValueError, match=f"{name}: `{option}` must be a scalar"):
            getattr(losses, name)(predictions, MASK, targets, **{option: np.ones(3)})


@pytest.mark.parametrize(
    ("name", "dtype", "text"),
    [
        ("hinge_loss", bool, "-1 or 1"),
        ("perceptron_loss", bool, "-1 or 1"),
        ("sparsemax_loss", np.float32, "boolean or integer"),
        ("softmax_cross_entropy_with_integer_labels", np.float32, "integer class ids"),
        ("multiclass_hinge_loss", bool, "integer class ids"),
        ("kl_divergence", np.int32, "floating point"),
        ("safe_softmax_cross_entropy", np.int32, "floating point"),
        ("cosine_distance", np.int32, "floating point"),
    ],
)
def test_targets_of_a_dtype_that_would_be_misread_are_refused(name, dtype, text):
    predictions, targets = inputs(name)
    with pytest.raises(TypeError, match=f"{name}: `targets` must be.* {text}"):
        getattr(losses, name)(predictions, MASK, targets.astype(dtype))


# ------------------------------------------------------------------------------- CTC


def cost_by_enumeration(logits, labels, blank):
    """-log of the probability of all alignments that spell the labels, one by one."""
    log_p = log_softmax(logits)
    total = 0.0
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        spelled = [token for token, _ in itertools.groupby(path) if token != blank]
        if spelled == list(labels):
            total += np.exp(sum(log_p[t, k] for t, k in enumerate(path)))
    return -np.log(total)


ctc = jax.jit(losses.ctc_loss, static_argnames="blank_id")


def ctc_inputs(blank):
    rng = np.random.default_rng(blank)
    logits = rng.normal(size=(6, 5, 3)).astype(np.float32)
    one, two = [k for k in range(3) if k != blank]
    labels = np.array([[one, two], [one, one], [two, 9], [9, one], [9, 9], [one, two]], np.int32)
    label_mask = np.array([[1, 1], [1, 1], [1, 0], [0, 1], [0, 0], [1, 1]], bool)
    mask = np.array(
        [
            [1, 1, 1, 1, 1],
            [1, 1, 1, 1, 0],
            [0, 0, 1, 1, 1],
            [1, 0, 1, 0, 1],
            [1, 1, 0, 0, 0],
            [0, 0, 0, 0, 0],
        ],
        bool,
    )
    return logits, mask, labels, label_mask


@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_adds_up_all_alignments_of_the_real_frames(blank):
    logits, mask, labels, label_mask = ctc_inputs(blank)
    cost, row_mask = ctc(logits, mask, labels, label_mask, blank_id=blank)
    assert row_mask.tolist() == [True] * 5 + [False]
    for row in range(5):
        frames, spelled = logits[row][mask[row]], labels[row][label_mask[row]]
        np.testing.assert_allclose(
            cost[row], cost_by_enumeration(frames, spelled, blank), rtol=1e-5
        )
    assert cost[5] == 0


def test_ctc_gradients_are_those_of_the_row_alone_and_blind_to_padding():
    logits, mask, labels, label_mask = ctc_inputs(0)

    @jax.jit
    def value_and_gradient(logits, labels):
        def total(x):
            cost, _ = losses.ctc_loss(x, mask, labels, label_mask)
            return jnp.sum(cost), cost

        return jax.value_and_grad(total, has_aux=True)(logits)

    clean = value_and_gradient(poisoned(logits, mask, "zero"), poisoned(labels, label_mask, "zero"))
    for how in ("nan", "inf", "-inf", "huge"):
        dirty = value_and_gradient(poisoned(logits, mask, how), poisoned(labels, label_mask, how))
        jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    _, gradient = clean
    assert np.all(np.asarray(gradient)[~mask] == 0)

    @jax.jit
    @jax.grad
    def alone(frames, spelled):
        return optax.losses.ctc_loss(
            frames[None], jnp.zeros((1, 3)), spelled[None], jnp.zeros((1, 1))
        )[0]

    for row in (2, 3):  # padded on the left, and with holes
        expected = alone(logits[row][mask[row]], labels[row][label_mask[row]])
        np.testing.assert_allclose(gradient[row][mask[row]], expected, rtol=1e-4, atol=1e-5)


def test_ctc_without_masks_frames_or_labels():
    logits = np.zeros((2, 3, 4), np.float32)
    labels = np.ones((2, 1), np.int32)
    cost, row_mask = ctc(logits, None, labels, None)
    assert row_mask is None
    np.testing.assert_allclose(cost, cost_by_enumeration(logits[0], [1], 0), rtol=1e-6)

    silence, _ = ctc(logits, None, labels[:, :0], None)
    np.testing.assert_allclose(silence, 3 * np.log(4), rtol=1e-6)

    no_time = np.zeros((2, 0), bool)
    cost, row_mask = losses.ctc_loss(logits[:, :0], no_time, labels, None)
    assert (cost.tolist(), row_mask.tolist()) == ([0, 0], [False, False])


def test_ctc_labels_that_cannot_fit_cost_much_but_stay_finite():
    logits = np.zeros((2, 2, 4), np.float32)
    labels = np.array([[1, 2, 3], [1, 1, 0]], np.int32)
    label_mask = np.array([[1, 1, 1], [1, 1, 0]], bool)  # equal labels need a blank between

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient_and_cost(x):
        cost, _ = losses.ctc_loss(x, None, labels, label_mask)
        return jnp.sum(cost), cost

    gradient, cost = gradient_and_cost(logits)
    assert np.all((cost >= 1e5) & (cost < 1e6))
    assert np.all(np.isfinite(gradient))


def test_ctc_in_half_precision_adds_up_in_float32():
    logits, mask, labels, label_mask = ctc_inputs(0)
    cost, _ = ctc(jnp.asarray(logits, jnp.bfloat16), mask, labels, label_mask)
    rounded = jnp.asarray(logits, jnp.bfloat16).astype(jnp.float32)
    assert cost.dtype == jnp.float32
    np.testing.assert_allclose(cost, ctc(rounded, mask, labels, label_mask)[0], rtol=1e-6)


def test_ctc_refuses_what_it_cannot_read():
    logits, mask, labels, label_mask = ctc_inputs(0)
    with pytest.raises(ValueError, match="ctc_loss: `blank_id` must be at least 0"):
        losses.ctc_loss(logits, mask, labels, label_mask, blank_id=-1)
    with pytest.raises(ValueError, match="ctc_loss: `blank_id` must be one of the 3 classes"):
        losses.ctc_loss(logits, mask, labels, label_mask, blank_id=3)
    with pytest.raises(ValueError, match="ctc_loss: `logits` must be"):
        losses.ctc_loss(logits[..., 0], mask, labels, label_mask)
    with pytest.raises(ValueError, match="ctc_loss: `labels` must be"):
        losses.ctc_loss(logits, mask, labels[:2], label_mask[:2])
    with pytest.raises(TypeError, match="ctc_loss: `labels` must be integer"):
        losses.ctc_loss(logits, mask, labels.astype(np.float32), label_mask)
    with pytest.raises(TypeError, match="ctc_loss: `logits` must be floating"):
        losses.ctc_loss(logits.astype(np.int32), mask, labels, label_mask)
    with pytest.raises(jm.MaskError, match=r"ctc_loss: `mask` must have .* axes of `logits`"):
        losses.ctc_loss(logits, mask[:, :2], labels, label_mask)
    with pytest.raises(jm.MaskError, match=r"ctc_loss: `mask` must have .* axes of `labels`"):
        losses.ctc_loss(logits, mask, labels, mask)
    with pytest.raises(jm.MaskError, match="Segments"):
        losses.ctc_loss(logits, jm.Segments(mask.astype(np.int32), 1), labels, label_mask)


# ------------------------------------------------------------------------- reduction


def reduced_by_hand(per_step, mask, weights, by):
    """Plain Python over the real steps; `weights` None, a list a row, or a number a row."""
    rows = []
    for row, real in enumerate(mask):
        steps = []
        for t in np.flatnonzero(real):
            weight = 1.0
            if weights is not None:
                weight = float(weights[row][t] if weights.ndim == 2 else weights[row])
            steps.append((weight, float(np.mean(per_step[row][t]))))
        if steps:
            rows.append(steps)
    total = sum(w * y for steps in rows for w, y in steps)
    if by == "sum":
        return total
    if by == "step":
        return total / sum(w for steps in rows for w, _ in steps)
    means = [sum(w * y for w, y in steps) / sum(w for w, _ in steps) for steps in rows]
    of_rows = [1.0] * len(rows)
    if weights is not None and weights.ndim == 1:
        of_rows = [steps[0][0] for steps in rows]
    return sum(w * m for w, m in zip(of_rows, means, strict=True)) / sum(of_rows)


def weights_like(mask, kind):
    rng = np.random.default_rng(3)
    shape = {"none": None, "rows": mask.shape[:1], "steps": mask.shape}[kind]
    return None if shape is None else rng.uniform(0.5, 2, shape).astype(np.float32)


@pytest.mark.parametrize("by", ["step", "row", "sum"])
@pytest.mark.parametrize("kind", ["none", "rows", "steps"])
@pytest.mark.parametrize("features", [(), (3,)])
def test_reduce_agrees_with_plain_python(by, kind, features):
    per_step = np.random.default_rng(0).normal(size=(*MASK.shape, *features)).astype(np.float32)
    weights = weights_like(MASK, kind)
    expected = reduced_by_hand(per_step, MASK, weights, by)
    found = losses.reduce(per_step, MASK, weights, by)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (found.shape, found.dtype) == ((), jnp.float32)
    jitted = jax.jit(losses.reduce, static_argnames="by")(per_step, MASK, weights, by=by)
    np.testing.assert_allclose(jitted, expected, rtol=1e-5)

    everywhere = np.ones_like(MASK)
    np.testing.assert_allclose(
        losses.reduce(per_step, None, weights, by),
        reduced_by_hand(per_step, everywhere, weights, by),
        rtol=1e-5,
    )
    if by != "sum":
        total, count = losses.sum_and_count(per_step, MASK, weights, by)
        np.testing.assert_allclose(total / count, expected, rtol=1e-5)


@pytest.mark.parametrize("by", ["step", "row", "sum"])
@pytest.mark.parametrize("kind", ["none", "rows", "steps"])
def test_nan_in_the_padding_of_losses_and_weights_changes_no_bit(by, kind):
    per_step = np.random.default_rng(1).normal(size=MASK.shape).astype(np.float32)
    weights = weights_like(MASK, kind)

    def value_and_gradients(how):
        losses_ = poisoned(per_step, MASK, how)
        if weights is None:
            return jax.value_and_grad(losses.reduce)(losses_, MASK, None, by)
        real = MASK if weights.ndim == 2 else MASK.any(1)
        weights_ = poisoned(weights, real, how)
        return jax.value_and_grad(losses.reduce, argnums=(0, 2))(losses_, MASK, weights_, by)

    clean = value_and_gradients("zero")
    assert np.all(np.asarray(jax.tree.leaves(clean)[1])[~MASK] == 0)
    for how in ("nan", "inf", "huge"):
        jax.tree.map(np.testing.assert_array_equal, clean, value_and_gradients(how))


@pytest.mark.parametrize("by", ["step", "row", "sum"])
def test_nothing_to_count_is_zero_with_zero_gradients(by):
    nothing = np.zeros((2, 3), bool)
    bad = np.full((2, 3), np.nan, np.float32)
    value, gradients = jax.value_and_grad(losses.reduce, argnums=(0, 2))(bad, nothing, bad, by)
    assert value == 0
    for gradient in gradients:
        assert np.all(np.asarray(gradient) == 0)
    zero_weights = np.zeros((2, 3), np.float32)
    ones = np.ones((2, 3), np.float32)
    value, gradient = jax.value_and_grad(losses.reduce)(ones, ones.astype(bool), zero_weights, by)
    assert value == 0
    assert np.all(np.isfinite(gradient))
    assert losses.reduce(ones[:, :0], np.zeros((2, 0), bool), by=by) == 0
    assert losses.reduce(ones[:0], np.zeros((0, 3), bool), by=by) == 0


def test_a_row_of_zero_weights_does_not_count_by_row():
    per_step = np.array([[1.0, 3.0], [8.0, 8.0]], np.float32)
    weights = np.array([[1.0, 3.0], [0.0, 0.0]], np.float32)
    assert losses.reduce(per_step, None, weights, "row") == 2.5


def test_weights_of_rows_weigh_rows_also_where_batch_equals_time():
    # Keras gives 10 here: it takes a weight a row for a weight a column where the sizes agree.
    per_step = np.array([[2.0, 3.0], [8.0, 7.0]], np.float32)
    mask = np.ones((2, 2), bool)
    rows = np.array([1.0, 0.0], np.float32)
    assert losses.reduce(per_step, mask, rows, "sum") == 5.0
    assert losses.reduce(per_step, mask, rows, "step") == 2.5
    assert losses.reduce(per_step, mask, rows, "row") == 2.5
    assert losses.reduce(per_step, mask, np.array([[1.0, 0.0]] * 2, np.float32), "sum") == 10.0


def test_rows_are_segments_where_segments_stand_in_the_masks_place():
    per_step = np.array([[1.0, 1.0, 1.0, 5.0, np.nan], [7.0, np.nan, 2.0, 4.0, 0.0]], np.float32)
    ids = np.array([[1, 1, 1, 2, 0], [1, 0, 2, 2, 2]], np.int32)
    segments = jm.Segments(jnp.asarray(ids), max_segments=3)
    assert losses.reduce(per_step, segments, by="step") == np.float32(21 / 8)
    assert losses.reduce(per_step, segments, by="row") == (1 + 5 + 7 + 2) / 4
    weights = np.array([2.0, 1.0], np.float32)  # of the packed rows
    assert losses.reduce(per_step, segments, weights, "row") == np.float32((2 + 10 + 7 + 2) / 6)
    total, count = losses.sum_and_count(per_step, segments, by="row")
    assert (float(total), float(count)) == (15.0, 4.0)


def test_rows_of_a_row_mask_count_alike_by_step_and_by_row():
    per_row = np.array([[1.0, 3.0], [np.nan, np.nan], [6.0, 8.0]], np.float32)
    row_mask = np.array([True, False, True])
    weights = np.array([3.0, np.nan, 1.0], np.float32)
    for by in ("step", "row"):
        assert losses.reduce(per_row, row_mask, by=by) == 4.5
        assert losses.reduce(per_row, row_mask, weights, by) == (3 * 2 + 7) / 4
    assert losses.reduce(per_row, row_mask, by="sum") == 9.0
    assert losses.reduce(per_row[:, 0][::2], None, by="sum") == 7.0


def test_totals_and_counts_of_devices_add_up_to_the_whole_batch():
    per_step = np.random.default_rng(4).normal(size=(4, 3)).astype(np.float32)

    def on_a_device(y, m):
        total, count = losses.sum_and_count(y, m)
        return jax.lax.psum(total, "device") / jax.lax.psum(count, "device")

    halves = per_step.reshape(2, 2, 3), MASK.reshape(2, 2, 3)
    found = jax.jit(jax.vmap(on_a_device, axis_name="device"))(*halves)
    whole = per_step[MASK].mean()
    np.testing.assert_allclose(found, [whole, whole], rtol=1e-5)
    of_halves = [y[m].mean() for y, m in zip(*halves, strict=True)]
    assert abs(np.mean(of_halves) - whole) > 1e-2  # else the mean of means would pass too


def test_half_precision_is_added_up_in_float32_and_integers_are_counted():
    ones = jnp.ones((1, 1001), jnp.bfloat16)  # 1001 is no bfloat16
    total, count = losses.sum_and_count(ones, None)
    assert (float(total), float(count), total.dtype) == (1001.0, 1001.0, jnp.float32)
    right = np.array([[True, False, True]])
    assert losses.reduce(right, np.array([[True, True, False]])) == 0.5
    assert losses.reduce(right.astype(np.int32), None) == np.float32(2 / 3)


def test_reduce_refuses_what_it_cannot_read():
    per_step = np.zeros((2, 3), np.float32)
    mask = np.ones((2, 3), bool)
    with pytest.raises(ValueError, match="reduce: `by` must be one of 'step', 'row', 'sum'"):
        losses.reduce(per_step, mask, by="mean")
    with pytest.raises(ValueError, match='sum_and_count: `by` must be "step" or "row"'):
        losses.sum_and_count(per_step, mask, by="sum")
    with pytest.raises(ValueError, match="sum_and_count: `by` must be one of"):
        losses.sum_and_count(per_step, mask, by="batch")
    for shape, expected in [((3,), r"\[batch\] = \(2,\)"), ((2, 1), r"\[batch, time\] = \(2, 3\)")]:
        with pytest.raises(ValueError, match=f"reduce: `weights` must be {expected}"):
            losses.reduce(per_step, mask, np.ones(shape, np.float32))
    with pytest.raises(ValueError, match=r"reduce: `weights` must be \[batch, time\]"):
        losses.reduce(per_step[..., None], mask, np.ones((2, 3, 1), np.float32))
    with pytest.raises(ValueError, match=r"reduce: `weights` must be \[batch\]"):
        losses.reduce(per_step, mask[:, 0], np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"reduce: `weights` must be \[batch, time\]"):
        losses.reduce(per_step, mask, np.float32(2))
    with pytest.raises(TypeError, match="reduce: `per_step` must be real numbers"):
        losses.reduce(per_step.astype(np.complex64), mask)
    with pytest.raises(TypeError, match="reduce: `weights` must be real numbers"):
        losses.reduce(per_step, mask, per_step.astype(np.complex64))
    with pytest.raises(jm.MaskError, match="reduce: `mask` must have the shape"):
        losses.reduce(per_step, mask[:, :2])
    with pytest.raises(TypeError, match="unpack it"):
        losses.reduce((per_step, mask), None)
