"""Losses by the names of optax, and losses of optax that are lifted, against optax."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmask as jm
from jaxmask import losses
from tests.losses import MASK, log_softmax, poisoned

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
    "hinge_loss": ("sign", {}),
    "softmax_cross_entropy": ("classes", {}),
    "safe_softmax_cross_entropy": ("classes", {}),
    "kl_divergence": ("classes", {}),
    "kl_divergence_with_log_targets": ("logs", {}),
    "softmax_cross_entropy_with_integer_labels": ("ids", {}),
}
LIFTED = {
    "sparsemax_loss": ("binary", {}),
    "perceptron_loss": ("sign", {}),
    "poly_loss_cross_entropy": ("classes", {"epsilon": 1.5}),
    "generalized_kl_divergence": ("classes", {}),
    "multiclass_hinge_loss": ("ids", {}),
    "multiclass_perceptron_loss": ("ids", {}),
    "multiclass_sparsemax_loss": ("ids", {}),
}
ALL = LOSSES | LIFTED
ELEMENTWISE = {"squared_error", "l2_loss", "huber_loss", "log_cosh"} | {
    name for name, (kind, _) in ALL.items() if kind in ("binary", "sign")
}


def with_options(table):
    return [name for name, (_, options) in table.items() if options]


def reference(name):
    function = getattr(optax.losses, name)
    # It takes one leading axis only.
    return jax.vmap(function) if name == "multiclass_sparsemax_loss" else function


FUNCTIONS = {name: getattr(losses, name) for name in LOSSES}
FUNCTIONS |= {name: losses.lift(reference(name)) for name in LIFTED}


def argument_names(name):
    predictions, _, targets, *_ = inspect.signature(FUNCTIONS[name]).parameters
    return predictions, targets


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
    }[ALL[name][0]]
    return logits, targets.astype(np.int32 if targets.dtype.kind == "i" else np.float32)


def apply(name, predictions, mask, targets):
    return FUNCTIONS[name](predictions, mask, targets, **ALL[name][1])


def alone(name, predictions, targets):
    if name == "multiclass_sparsemax_loss" and targets.ndim == 1:
        return getattr(optax.losses, name)(predictions, targets)
    return reference(name)(predictions, targets, **ALL[name][1])


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


@pytest.mark.parametrize("name", ALL)
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


@pytest.mark.parametrize("name", ALL)
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


@pytest.mark.parametrize("name", with_options(ALL))
def test_gradients_in_options_do_not_see_the_padding(name):
    # The gradient of an option adds up over all steps: the one place where an unsafe filler shows.
    predictions, targets = inputs(name)
    options = ALL[name][1]

    def total(options, p, t):
        return jnp.sum(FUNCTIONS[name](p, MASK, t, **options)[0])

    def total_alone(options):
        return jnp.sum(reference(name)(predictions[MASK], targets[MASK], **options))

    expected = jax.jit(jax.grad(total_alone))(options)
    gradient = jax.jit(jax.grad(total))
    for how in ("nan", "zero"):
        found = gradient(options, poisoned(predictions, MASK, how), poisoned(targets, MASK, how))
        for key, value in found.items():
            np.testing.assert_allclose(value, expected[key], rtol=1e-5, atol=1e-6)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ALL)
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
        np.testing.assert_allclose(value[real], everything[real], rtol=1e-5, atol=1e-6)
        assert np.all(np.asarray(value)[~real] == 0)
    ones = ones_for(name, predictions)
    jitted, *_ = value_and_gradients(name, predictions, MASK, targets, ones)
    np.testing.assert_allclose(jitted[MASK], everything[MASK], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
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


@pytest.mark.parametrize("name", ALL)
def test_the_dtype_is_that_of_the_floating_arguments(name):
    predictions, targets = inputs(name)
    predictions = jnp.asarray(predictions, jnp.bfloat16)
    y, _ = jax.eval_shape(functools.partial(apply, name), predictions, MASK, targets)
    assert y.dtype == (jnp.float32 if targets.dtype.kind == "f" else jnp.bfloat16)
    if targets.dtype.kind == "f":
        targets = jnp.asarray(targets, jnp.bfloat16)
        y, _ = jax.eval_shape(functools.partial(apply, name), predictions, MASK, targets)
        assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize("name", LOSSES)
def test_public_functions_look_like_those_of_optax(name):
    function = getattr(losses, name)
    assert name in losses.__all__
    assert inspect.isfunction(function)
    assert function.__name__ == inspect.unwrap(function).__code__.co_name == name
    names, theirs = (
        list(inspect.signature(f).parameters.values())
        for f in (function, getattr(optax.losses, name))
    )
    ours = {"predictor_outputs": "predictions", "labels": "targets"}  # else optax's own names
    first, second = (ours.get(parameter.name, parameter.name) for parameter in theirs[:2])
    assert [parameter.name for parameter in names[:3]] == [first, "mask", second]
    defaults = {parameter.name: parameter.default for parameter in theirs}
    options = [parameter for parameter in names[3:] if parameter.name != "where"]
    for parameter in options:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default == defaults[parameter.name]
    assert {parameter.name for parameter in options} == set(LOSSES[name][1])
    assert "Args:" in function.__doc__ or "Arguments and result are those of" in function.__doc__
    for section in ("Example:", f"optax.losses.{name}"):
        assert section in function.__doc__


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_is_broadcast(name):
    predictions, targets = inputs(name)
    loss = getattr(losses, name)
    first, second = argument_names(name)
    wrong = [targets[:1], targets[:, :1], targets[:, 0], targets[0], targets[..., None]]
    for bad in wrong:
        with pytest.raises(ValueError, match=f"{name}: `{second}` must be the shape of"):
            loss(predictions, MASK, bad)
    for bad in (MASK[:1], MASK[:, :1], MASK.T):
        with pytest.raises(jm.MaskError, match=f"{name}: `mask`"):
            loss(predictions, bad, targets)
    with pytest.raises(TypeError, match=f"{name}: `mask` must be boolean"):
        loss(predictions, MASK.astype(np.float32), targets)
    with pytest.raises(TypeError, match=f"{name}: `{first}` must be floating"):
        loss(predictions.astype(np.int32), MASK, targets)
    with pytest.raises(TypeError, match=f"{name}: `{second}` must be an array"):
        loss(predictions, MASK, (targets, MASK))
    with pytest.raises(TypeError, match=f"{name}: `{first}` must be a JAX or NumPy array"):
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
    with pytest.raises(
        ValueError, match=f"{name}: `{argument_names(name)[0]}` must have an axis after"
    ):
        getattr(losses, name)(np.zeros((4, 3), np.float32), np.ones((4, 3), bool), targets)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", with_options(LOSSES))
def test_options_go_by_row_or_by_step(name):
    predictions, targets = inputs(name)
    predictions, targets, mask = predictions[:3], targets[:3], MASK[:3]  # batch = time

    def call(steps, **options):
        return getattr(losses, name)(predictions[steps], mask[steps], targets[steps], **options)[0]

    for option, value in LOSSES[name][1].items():
        by_row = np.array([1, 2, 3], np.float32) * (value or 0.5)
        by_step = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32) * (value or 0.5) / 3
        rows = [call(np.s_[b : b + 1], **{option: by_row[b]}) for b in range(3)]
        np.testing.assert_allclose(call(np.s_[:], **{option: by_row}), np.concatenate(rows), 1e-5)
        steps = [
            [call(np.s_[b : b + 1, t : t + 1], **{option: by_step[b, t]})[0, 0] for t in range(3)]
            for b in range(3)
        ]
        np.testing.assert_allclose(call(np.s_[:], **{option: by_step}), steps, 1e-5)
        with pytest.raises(ValueError, match=f"{name}: `{option}` must be one number, or have"):
            call(np.s_[:], **{option: np.ones(4)})
        with pytest.raises(ValueError, match=f"{name}: `{option}` must be one number, or have"):
            call(np.s_[:], **{option: np.ones((1, 3))})

        def total(value, option=option):
            y, _ = getattr(losses, name)(predictions, mask, targets, **{option: value})
            return jnp.sum(y)

        hidden = np.where(mask, by_step, np.nan)
        assert np.isfinite(jax.grad(total)(hidden)).all()


@pytest.mark.parametrize(
    ("name", "dtype", "text"),
    [
        ("hinge_loss", bool, "-1 or 1"),
        ("softmax_cross_entropy_with_integer_labels", np.float32, "integer class ids"),
        ("softmax_cross_entropy_with_integer_labels", bool, "integer class ids"),
        ("kl_divergence", np.int32, "floating point"),
        ("safe_softmax_cross_entropy", np.int32, "floating point"),
        ("cosine_distance", np.int32, "floating point"),
    ],
)
def test_targets_of_a_dtype_that_would_be_misread_are_refused(name, dtype, text):
    predictions, targets = inputs(name)
    with pytest.raises(TypeError, match=f"{name}: `targets` must be.* {text}"):
        getattr(losses, name)(predictions, MASK, targets.astype(dtype))


OF_CLASSES = [name for name, (kind, _) in LOSSES.items() if kind == "ids"]
YES_OR_NO = [name for name, (kind, _) in LOSSES.items() if kind == "binary"]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", [*OF_CLASSES, *YES_OR_NO, "seq2seq_cross_entropy"])
def test_ids_that_are_no_class_are_refused_or_nan(name):
    kind = name if name in LOSSES else OF_CLASSES[0]
    predictions, targets = inputs(kind)
    loss = getattr(losses, name)
    clean, _ = loss(predictions, MASK, targets)
    at = (1, 2, 0) if name in YES_OR_NO else (1, 2)
    for wrong in (-1, -100, 3, 2**31 - 1):
        spoiled = np.where(MASK.reshape(*MASK.shape, *[1] * (targets.ndim - 2)), targets, wrong)
        spoiled[at] = wrong
        with pytest.raises(ValueError, match=rf"{name}: `targets` must lie in 0..\d at real"):
            loss(predictions, MASK, spoiled)
        with pytest.raises(ValueError, match=rf"{name}: `targets` must lie in 0..\d at real"):
            jax.jit(lambda p, t=spoiled: loss(p, MASK, t)[0])(predictions)

        def total(p, t):
            y, _ = loss(p, MASK, t)
            return jnp.sum(y), y

        gradient, y = jax.jit(jax.grad(total, has_aux=True))(predictions, spoiled)
        expected = np.array(clean)
        expected[at] = np.nan
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        assert np.isfinite(gradient).all()
        assert not np.any(gradient[at])


# ------------------------------------------------------------------------- what optax has

# Not wrapped, and why.
ELSEWHERE = dict.fromkeys(LIFTED, "an example of `lift`") | {
    "binary_dice_loss": "dice_loss of one class",
    "convex_kl_divergence": "the old name of generalized_kl_divergence, with a warning",
    "ctc_loss_with_forward_probs": "ctc_loss; its table over frames and labels is no loss",
    "make_fenchel_young_loss": "makes losses; `lift` takes what it makes",
    "multiclass_generalized_dice_loss": "weighs the classes by the counts of the whole batch",
    "smooth_labels": "makes targets; seq2seq_cross_entropy has it as an option",
}


def test_every_loss_of_optax_is_here_or_has_a_reason():
    theirs = {
        name
        for name, value in vars(optax.losses).items()
        if name[0] != "_" and inspect.isroutine(value)
    }
    assert theirs - set(losses.__all__) == set(ELSEWHERE)
