"""The leak check catches functions that leak and passes functions that do not.

Each function here is written out in plain JAX or Flax, so that its verdict is known without the
check: what is wrong with it stands in its name.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from jaxmask import leak
from jaxmask.leak._layouts import layouts

MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], bool)
X = np.random.default_rng(7).normal(size=(3, 5, 2)).astype(np.float32)
IDS = np.array([[3, 1, 2, 0, 0], [4, 4, 1, 2, 3], [2, 1, 0, 0, 0]], np.int32)
KERNEL = np.random.default_rng(8).normal(size=(2, 2)).astype(np.float32)
ALL_MOVES = ("left", "holes", "empty", "permute")


def real(mask):
    return mask[..., None]


def safe(x, mask):
    return jnp.where(real(mask), x, 0)


def whats(report):
    return {finding.what for finding in report.witnesses}


def moves_of(report):
    return {finding.move for finding in report.witnesses}


def right_mean(x, mask):
    count = jnp.maximum(mask.sum(1), 1)
    return safe(x, mask).sum(1) / count[:, None], mask.any(1)


# --------------------------------------------------------------------------- value leaks


def naive_mean(x, mask):
    return x.mean(1), mask.any(1)


def times_mask(x, mask):
    return (x * real(mask)).sum(1), mask.any(1)


def divides_by_padded_length(x, mask):
    return safe(x, mask).sum(1) / x.shape[1], mask.any(1)


def physical_flip(x, mask):
    return jnp.flip(x, 1), mask


def reads_one_step_on(x, mask):
    return jnp.concatenate([x[:, 1:], jnp.zeros_like(x[:, :1])], 1), mask


def nan_to_num(x, mask):
    return jnp.nan_to_num(x, posinf=0, neginf=0).mean(1), mask.any(1)


def ignores_what_is_large(x, mask):
    return jnp.where(jnp.abs(x) < 1e3, x, 0).sum(1), mask.any(1)


def only_ordinary_values_show_it(x, mask):
    """Zeros, what is large, and copies of a row's first step all go unnoticed."""
    hidden = (x == 0) | ~(jnp.abs(x) < 1e3)
    return jnp.where(hidden, 0, (x - x[:, :1]) ** 2).sum(1), mask.any(1)


def takes_zero_for_padding(x, mask):
    own = (x != 0).any(-1)
    return safe(x, own).sum(1), mask.any(1)


def nanmean(x, mask):
    return jnp.nanmean(x, 1), mask.any(1)


def maximum(x, mask):
    return x.max(1), mask.any(1)


def counts_positive(x, mask):
    return (x > 0).sum(1), mask.any(1)


def argmax(x, mask):
    return x.argmax(1), mask.any(1)


def rounds(x, mask):
    return jnp.round(jax.nn.sigmoid(jnp.nan_to_num(x))).sum(1), mask.any(1)


def additive_bias(x, mask):
    weights = jax.nn.softmax(jnp.where(real(mask), 0.0, -1e9) + x, axis=1)
    return (weights * x).sum(1), mask.any(1)


def centres_on_the_batch(x, mask):
    return x - x.mean((0, 1)), mask


def reads_the_neighbouring_row(x, mask):
    return jnp.roll(x, 1, axis=0), mask


def mask_shortened_by_the_padding(x, mask):
    return x, mask & ~(x[:, -1:, 0] > 0)


def mask_of_its_own(x, mask):
    return x, (x != 0).any(-1)


def mask_of_padded_length(x, mask):
    return x, jnp.arange(x.shape[1]) < x.shape[1] - 2 + jnp.zeros_like(mask, int)


def positions_from_the_end(x, mask):
    return safe(x, mask) * jnp.arange(x.shape[1])[::-1, None], mask


def stride_in_phase_with_the_end(x, mask):
    return jnp.flip(jnp.flip(x, 1)[:, ::2], 1), jnp.flip(jnp.flip(mask, 1)[:, ::2], 1)


def mask_lost(x, mask):
    return x


def carry_runs_on(x, mask):
    carry, y = jax.lax.scan(lambda h, v: (h * 0.5 + v,) * 2, jnp.zeros((3, 2)), x.swapaxes(0, 1))
    return carry, (y.swapaxes(0, 1), mask)


def loss_over_the_rectangle(x, mask):
    return jnp.where(real(mask), x**2, 0).mean()


CONVOLUTION = nnx.Conv(2, 2, kernel_size=(3,), rngs=nnx.Rngs(0))


def flax_convolution(x, mask):
    return CONVOLUTION(x), mask


VALUE_LEAKS = [
    flax_convolution,
    naive_mean,
    times_mask,
    divides_by_padded_length,
    physical_flip,
    reads_one_step_on,
    nan_to_num,
    ignores_what_is_large,
    only_ordinary_values_show_it,
    takes_zero_for_padding,
    nanmean,
    maximum,
    counts_positive,
    argmax,
    rounds,
    additive_bias,
    centres_on_the_batch,
    reads_the_neighbouring_row,
    mask_shortened_by_the_padding,
    mask_of_its_own,
    mask_of_padded_length,
    positions_from_the_end,
    stride_in_phase_with_the_end,
    mask_lost,
    carry_runs_on,
    loss_over_the_rectangle,
]


@functools.cache
def together(fns, moves=()):
    """One check of many functions, each an output of its own."""

    def fn(x, mask):
        return {fn.__name__: fn(x, mask) for fn in fns}

    return leak.check(fn, X, MASK, moves=moves)


def findings_of(report, fn):
    """Those in the values and masks that one of many functions returned."""
    return [f for f in report.witnesses if f.where.startswith(f"output['{fn.__name__}']")]


@functools.cache
def alone(fn):
    return leak.check(fn, X, MASK)


@pytest.mark.parametrize("fn", VALUE_LEAKS)
def test_a_leaking_value_or_mask_is_caught(fn):
    assert {f.what for f in findings_of(together(tuple(VALUE_LEAKS)), fn)} & {"value", "mask"}


@pytest.mark.parametrize(
    "fn", [divides_by_padded_length, positions_from_the_end, stride_in_phase_with_the_end]
)
def test_only_appended_padding_shows_what_depends_on_its_amount(fn):
    found = findings_of(together(tuple(VALUE_LEAKS)), fn)
    assert {f.move for f in found} == {"append"}


def test_ordinary_values_are_tried():
    x = np.where(MASK[..., None], X, 0)
    report = leak.check(only_ordinary_values_show_it, x, MASK)
    found = {f.under for f in report.witnesses if f.what == "value"}
    assert {"noise in the padding", "real values in the padding"} <= found
    assert "nan in the padding" not in found


def test_the_padding_as_given_is_tried_too():
    marker = np.float32(12.34567)
    x = np.where(MASK[..., None], X, marker)

    def knows_the_marker(x, mask):
        return (jnp.where(x == marker, 1.0, 0.0).sum(1), mask.any(1))

    report = leak.check(knows_the_marker, x, MASK)
    assert {finding.under for finding in report.witnesses} == {"the padding as given"}


def test_a_full_mask_is_tested_by_what_is_appended():
    def both(x, mask):
        return {"naive": naive_mean(x, mask), "right": right_mean(x, mask)}

    report = leak.check(both, X, np.ones((3, 5), bool))
    assert {f.where for f in report.witnesses if f.what == "value"} == {"output['naive'][0]"}
    assert "not tested: padding at the given shape: the mask has none" in str(report)


# ------------------------------------------------------------------------ gradient leaks


def root_with_where_after(x, mask):
    return jnp.where(real(mask), jnp.sqrt(jnp.abs(x)), 0), mask


def normalised_with_where_after(x, mask):
    return jnp.where(real(mask), x / jnp.linalg.norm(x, axis=-1, keepdims=True), 0), mask


def scan_with_where_after(x, mask):
    def step(h, inputs):
        v, m = inputs
        new = jnp.tanh(v @ KERNEL + h @ KERNEL)
        h = jnp.where(m[:, None], new, h)
        return h, h

    carry, y = jax.lax.scan(step, jnp.zeros((x.shape[0], 2)), (x.swapaxes(0, 1), mask.T))
    return carry, (y.swapaxes(0, 1), mask)


@jax.custom_vjp
def _to_padding(x, mask):
    return right_mean(x, mask)[0]


_to_padding.defvjp(
    lambda x, mask: (_to_padding(x, mask), x.shape),
    lambda shape, g: (jnp.broadcast_to(g[:, None], shape) / shape[1], None),
)


def backward_pass_reaches_padding(x, mask):
    return _to_padding(x, mask), mask.any(1)


@jax.custom_vjp
def _from_padding(x, mask):
    return right_mean(x, mask)[0]


_from_padding.defvjp(
    lambda x, mask: (_from_padding(x, mask), (x, mask)),
    lambda saved, g: (
        safe(g[:, None] * saved[0].mean(1, keepdims=True), saved[1]) + 0 * saved[0],
        None,
    ),
)


def backward_pass_reads_padding(x, mask):
    return _from_padding(x, mask), mask.any(1)


@jax.custom_vjp
def _counts_padding(x, mask):
    return right_mean(x, mask)[0]


_counts_padding.defvjp(
    lambda x, mask: (_counts_padding(x, mask), (x.shape, mask)),
    lambda saved, g: (
        jnp.where(saved[1][..., None], jnp.broadcast_to(g[:, None], saved[0]), 0) / saved[0][1],
        None,
    ),
)


def backward_pass_counts_padding(x, mask):
    return _counts_padding(x, mask), mask.any(1)


GRADIENT_LEAKS = {
    root_with_where_after: "gradient in x at padding",
    normalised_with_where_after: "gradient in x at padding",
    scan_with_where_after: "gradient in x",
    backward_pass_reaches_padding: "gradient in x at padding",
    backward_pass_reads_padding: "gradient in x",
    backward_pass_counts_padding: "gradient in x",
}


@pytest.mark.parametrize("fn", GRADIENT_LEAKS)
def test_a_leak_in_the_gradient_alone_is_caught(fn):
    report = alone(fn)
    assert not report.ok
    assert GRADIENT_LEAKS[fn] in whats(report)
    assert all(what.startswith("gradient") for what in whats(report))
    assert "The value is right" in str(report)


class Wrapped(nnx.Module):
    """A layer that knows no mask, which passes by it."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x, mask):
        return self.layer(x), mask


def test_layer_norm_is_right_as_a_closure_and_its_parameter_gradients_are_not():
    norm = nnx.LayerNorm(2, rngs=nnx.Rngs(0))
    assert leak.check(lambda x, mask: (norm(x), mask), X, MASK).ok
    report = leak.check(Wrapped(norm), X, MASK)
    assert whats(report) == {"gradient in params"}
    assert {finding.where for finding in report.witnesses} >= {"params['layer']['scale']"}


def test_a_flax_convolution_is_caught_as_a_module():
    report = leak.check(Wrapped(CONVOLUTION), X, MASK)
    assert "value" in whats(report)
    assert "params['layer']['kernel']" in {finding.where for finding in report.witnesses}


def test_gradients_in_params_are_compared():
    def dense(params, x, mask):
        return (x @ params["kernel"] + params["bias"], mask)

    params = {"kernel": KERNEL, "bias": np.zeros(2, np.float32)}
    report = leak.check(dense, X, MASK, params=params)
    assert {finding.where for finding in report.witnesses} == {"params['kernel']"}

    def filled(params, x, mask):
        return dense(params, safe(x, mask), mask)

    assert leak.check(filled, X, MASK, params=params, moves=ALL_MOVES).ok


# ------------------------------------------------------------------------------ what passes


def masked_mean_in_plain_jax(x, mask):
    return jnp.mean(x, axis=1, where=real(mask)), mask.any(1)


def masked_scan(x, mask):
    return scan_with_where_after(safe(x, mask), mask)


def attention(x, mask):
    x = safe(x, mask)
    scores = jnp.where(mask[:, None, :], x @ x.swapaxes(1, 2), -1e30)
    return jax.nn.softmax(scores) @ x, mask


def centred(x, mask):
    """Every pooled value is 0 up to rounding."""
    mean = right_mean(x, mask)[0]
    return right_mean(x - mean[:, None], mask)


def flipped_with_its_mask(x, mask):
    return jnp.flip(x, 1), jnp.flip(mask, 1)


def steps_side_by_side(x, mask):
    """`[batch * time, feature]` and a mask `[batch * time]`."""
    return safe(x, mask).reshape(-1, 2), mask.reshape(-1)


def zero_filled_without_a_mask(x, mask):
    return safe(x, mask)


def several_pairs(x, mask):
    return {"halves": [(x[..., :1], mask), (x[..., 1:], mask)], "count": mask.sum(1)}


def loss(x, mask):
    return (safe(x, mask) ** 2).sum() / mask.sum()


def mask_alone(x, mask):
    return mask


DENSE = nnx.Linear(2, 3, rngs=nnx.Rngs(0))


def per_step_layer(x, mask):
    return DENSE(x), mask


RIGHT = {
    ALL_MOVES: (
        *(jm.pool.mean, jm.pool.max, jm.ops.softmax, jm.ops.cumsum, right_mean, masked_scan),
        *(centred, steps_side_by_side, several_pairs, per_step_layer),
    ),
    ("left", "holes", "permute"): (masked_mean_in_plain_jax, attention, loss),
    ("empty", "permute"): (zero_filled_without_a_mask, mask_alone),
    (): (flipped_with_its_mask,),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("moves", RIGHT, ids=str)
def test_right_functions_pass(moves):
    report = together(RIGHT[moves], moves)
    assert report.ok, str(report)


LONG = np.random.default_rng(9).normal(size=(2, 65, 2)).astype(np.float32)
LONG_MASK = np.arange(65) < np.array([[64], [33]])


def test_results_that_are_zero_but_for_rounding_pass():
    """A softmax does not see a bias of its keys, so the bias has no gradient but noise."""

    def attend(params, x, mask):
        x = safe(x, mask)
        keys = x @ params["kernel"] + params["bias"]
        scores = jnp.where(mask[:, None, :], x @ keys.swapaxes(1, 2), -1e30)
        return jax.nn.softmax(scores) @ x, mask

    params = {"kernel": KERNEL, "bias": np.ones(2, np.float32)}
    assert leak.check(attend, LONG, LONG_MASK, params=params, moves=("left", "holes")).ok
    assert leak.check(centred, LONG, LONG_MASK, moves=("left", "holes")).ok


def test_rounding_inside_is_allowed_for():
    """Float32 in and out, bfloat16 within: other shapes differ by far more than float32 rounds."""

    def coarse(x, mask):
        low = safe(x, mask).astype(jnp.bfloat16)
        return jax.lax.associative_scan(jnp.add, low, axis=1).astype(jnp.float32), mask

    assert leak.check(coarse, LONG, LONG_MASK, moves=("left", "holes")).ok


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16])
def test_low_precision(dtype):
    assert leak.check(jm.pool.mean, X.astype(dtype), MASK).ok
    assert not leak.check(divides_by_padded_length, X.astype(dtype), MASK).ok


def test_nan_in_a_real_step_is_no_leak_and_hides_none():
    x = X.copy()
    x[0, 0, 0] = np.nan
    x[1:, 0, 0] = np.inf

    def both(x, mask):
        return {
            "right": jm.pool.mean(x, mask),
            "squares": (x * x, mask),
            "leak": times_mask(x, mask),
        }

    report = leak.check(both, x, MASK)
    assert {f.where for f in report.witnesses if f.what == "value"} == {"output['leak'][0]"}
    assert leak.check(lambda x, mask: (x * x, mask), x, MASK).ok


def root_of_zeros(kernel, x, mask):
    squares = ((safe(x, mask) @ kernel) ** 2).sum(-1)
    return jnp.where(mask, jnp.sqrt(squares), 0), mask


def test_a_gradient_that_is_nan_whatever_the_padding_holds_leaks():
    report = leak.check(root_of_zeros, X, MASK, params=KERNEL)
    assert whats(report) == {"gradient in params"}
    assert "gradient in params" not in {claim.what for claim in report.proved}
    for fixed in (np.ones((len(X), 1)), np.ones(MASK.shape)):  # no row alone, no other length
        report = leak.check(
            lambda params, x, mask, fixed=fixed: root_of_zeros(params, x * fixed[..., None], mask),
            X,
            MASK,
            params=KERNEL,
        )
        assert whats(report) >= {"gradient in params"}
    # With a row whose own root is of 0 nobody can say.
    x = X.copy()
    x[0, 0] = 0
    report = leak.check(root_of_zeros, x, MASK, params=KERNEL)
    assert "gradient in params of params: it is nan for a row alone too" in report.not_tested


# ----------------------------------------------------------------------------------- moves


def mask_as_lengths(x, mask):
    last = jnp.maximum(mask.sum(1) - 1, 0)
    return jnp.take_along_axis(x, last[:, None, None], 1)[:, 0], mask.any(1)


def every_second_step(x, mask):
    return x[:, ::2], mask[:, ::2]


def adds_its_position(x, mask):
    return x + jnp.arange(x.shape[1])[:, None], mask


def convolution(x, mask):
    x = safe(x, mask)
    return x + jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1], mask


def mean_over_nothing(x, mask):
    return safe(x, mask).sum(1) / mask.sum(1)[:, None], mask.any(1)


def mean_over_nothing_without_a_mask(x, mask):
    return mean_over_nothing(x, mask)[0]


def maximum_of_nothing(x, mask):
    return jnp.where(real(mask), x, -jnp.inf).max(1), mask.any(1)


def empty_row_stays_real(x, mask):
    return right_mean(x, mask)[0], jnp.ones(len(mask), bool)


def divides_by_the_shortest(x, mask):
    return safe(x, mask).sum(1) / jnp.maximum(mask.sum(1).min(), 1), mask.any(1)


def centres_on_the_real_batch(x, mask):
    x = safe(x, mask)
    return x - x.sum((0, 1)) / mask.sum(), mask


def divides_by_the_longest(x, mask):
    """Of `MASK` the row in the middle is the longest."""
    return safe(x, mask).sum(1) / jnp.maximum(mask.sum(1).max(), 1), mask.any(1)


def scales_by_row_number(x, mask):
    return x * jnp.arange(1, len(x) + 1)[:, None, None], mask


MOVED = {
    "left": (mask_as_lengths, every_second_step, adds_its_position),
    "holes": (mask_as_lengths, convolution),
    "empty": (
        *(mean_over_nothing, mean_over_nothing_without_a_mask, maximum_of_nothing),
        *(empty_row_stays_real, divides_by_the_shortest),
    ),
    "permute": (centres_on_the_real_batch, divides_by_the_longest, scales_by_row_number),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("move", "fn"), [(move, fn) for move in MOVED for fn in MOVED[move]])
def test_a_move_catches_what_the_default_passes(move, fn):
    report = together(MOVED[move], (move,))
    assert {f.move for f in findings_of(report, fn)} == {move}
    assert moves_of(report) == {move}


def test_a_stride_is_noticed_where_padding_is_even():
    even = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]], bool)
    x = np.random.default_rng(0).normal(size=(2, 6, 1)).astype(np.float32)
    assert not leak.check(every_second_step, x, even, moves=("left",)).ok


def test_every_row_of_two_steps_gets_a_hole():
    for time in (2, 3, 4):
        mask = np.ones((8, time), bool)
        mask[:, 2:] = False
        moved = [m.marks for m in layouts([], mask, None, ("holes",)) if m.move == "holes"]
        for marks in moved:
            first, last = marks.argmax(1), marks.shape[1] - 1 - marks[:, ::-1].argmax(1)
            assert (marks.sum(1) == 2).all()
            assert (last - first > 1).all()


def test_the_mean_over_nothing_is_found_at_the_emptied_row():
    report = together(MOVED["empty"], ("empty",))
    found = findings_of(report, mean_over_nothing)
    assert [f.index[0] for f in found if f.under == "row 1 emptied"] == [1]
    assert "A row without a real step must give 0 and False" in str(report)


def test_a_single_row_has_nothing_to_permute():
    report = leak.check(jm.pool.mean, X[:1], MASK[:1], moves=("permute", "empty"))
    assert report.ok
    assert "not tested: permute: the batch has one row" in str(report)


def test_what_lies_in_time_without_a_mask_is_not_compared_after_a_move():
    report = leak.check(zero_filled_without_a_mask, X, MASK, moves=("left",))
    assert report.ok
    assert "padding moved to the left: output has a time axis and no mask" in str(report)


# ---------------------------------------------------------------- kinds of input and output


def test_integer_ids():
    table = jnp.asarray(np.random.default_rng(1).normal(size=(5, 2)), jnp.float32)

    def embed(ids, mask):
        return right_mean(table[ids], mask)

    report = leak.check(embed, IDS, MASK, moves=ALL_MOVES)
    assert report.ok
    assert "not tested: gradients: no floating point" in str(report)

    def leaks(ids, mask):
        pooled = table[ids].mean(1), mask.any(1)
        return {"mean": pooled, "mask": (ids, ids != 0), "max": (ids.max(1), mask.any(1))}

    found = {finding.where for finding in leak.check(leaks, IDS, MASK).witnesses}
    assert found >= {"output['mean'][0]", "output['mask'][1]", "output['max'][0]"}


def test_ids_that_are_out_of_range_reach_the_gradients_of_a_table():
    """`jnp.take` gives nan for such an id, as does an embedding whose padding id is its size."""

    def embed(params, ids, mask):
        vectors = jnp.take(params["table"], ids, axis=0)
        return vectors @ params["kernel"], mask

    params = {"table": np.ones((5, 2), np.float32), "kernel": KERNEL}
    report = leak.check(embed, IDS, MASK, params=params)
    assert {finding.where for finding in report.witnesses} == {"params['kernel']"}


def test_booleans_and_mixed_pytrees():
    def fn(inputs, mask):
        values = jnp.where(inputs["flag"], inputs["x"][0].sum(-1), inputs["x"][1])
        return jnp.where(mask, values, 0).sum(1), mask.any(1)

    inputs = {"x": (X, IDS), "flag": X[..., 0] > 0}
    assert leak.check(fn, inputs, MASK, moves=ALL_MOVES).ok

    def leaks(inputs, mask):
        flags, ids = inputs["flag"], inputs["x"][1]
        return {"flags": (flags.any(1), mask.any(1)), "ids": (ids.sum(1), mask.any(1))}

    found = {finding.where for finding in leak.check(leaks, inputs, MASK).witnesses}
    assert found == {"output['flags'][0]", "output['ids'][0]"}


def test_complex_values():
    x = (X + 1j * X[::-1]).astype(np.complex64)
    assert leak.check(lambda x, mask: (safe(x, mask).sum(1), mask.any(1)), x, MASK).ok
    assert not leak.check(naive_mean, x, MASK).ok


def test_a_row_mask_marks_rows_and_rows_are_appended():
    rows = np.array([True, False, True])

    def over_rows(x, rows):
        return safe(x, rows).sum(0) / rows.sum()

    assert leak.check(over_rows, X[:, 0], rows, moves=("permute",)).ok
    assert not leak.check(lambda x, rows: safe(x, rows).mean(0), X[:, 0], rows).ok
    assert leak.check(lambda x, rows: (x @ KERNEL, rows), X[:, 0], rows, moves=("permute",)).ok
    with pytest.raises(ValueError, match=r"mask \[batch, time\]"):
        leak.check(over_rows, X[:, 0], rows, moves=("left",))


SEGMENTS = jm.Segments(np.array([[1, 1, 2, 2, 0], [1, 2, 2, 0, 0], [1, 1, 1, 1, 1]]), 2)


def test_segments_are_kept_apart():
    def apart(x, segments):
        return [f(x, segments) for f in (jm.pool.mean, jm.ops.softmax, jm.ops.cumsum)]

    report = leak.check(apart, X, SEGMENTS, moves=("left", "holes", "permute"))
    assert report.ok, str(report)

    def sees_its_neighbour(x, segments):
        return (
            jnp.cumsum(safe(x, segments.ids > 0), 1),
            segments,
        )

    report = leak.check(sees_its_neighbour, X, SEGMENTS)
    assert moves_of(report) == {"segments"}

    def pools_all_segments(x, segments):
        whole_row = jnp.repeat(safe(x, segments.ids > 0).sum(1), 2, axis=0)
        return whole_row, jm.masks.rows(segments)

    report = leak.check(pools_all_segments, X, SEGMENTS)
    assert moves_of(report) == {"segments"}
    assert "Sequences of a packed row see each other" in str(report)


def test_what_hides_its_segments_is_reported():
    def total(x, segments):
        return safe(x, segments.ids > 0).sum()

    report = leak.check(total, X, SEGMENTS)
    assert report.ok
    assert "output does not say which sequence an entry belongs to" in str(report)


def test_a_result_of_a_smaller_rank_than_its_mask_is_read_whole():
    report = leak.check(lambda x, mask: (right_mean(x, mask)[0], mask), X, MASK)
    assert report.ok
    assert "output[0] float32 [3, 2], without a mask: every entry counts" in str(report)


def test_a_carry_is_compared_whole():
    report = leak.check(carry_runs_on, X, MASK)
    assert {finding.where for finding in report.witnesses if finding.what == "value"} == {
        "output[0]"
    }


def test_a_carry_as_wide_as_the_row_is_long_is_no_time_axis():
    def carry(x, mask):
        return jnp.tile(right_mean(x, mask)[0][:, :1], 5)

    report = leak.check(carry, X, MASK, moves=("left",))
    assert report.ok
    assert "time axis" not in str(report)


def test_a_constant_input_says_that_it_shows_no_order():
    report = leak.check(jm.pool.mean, np.ones_like(X), MASK)
    assert "not tested: the order of steps and rows" in str(report)


def test_what_grows_without_a_mask_must_grow_by_zeros():
    def ones(x, mask):
        return jnp.where(mask, x[..., 0], 1.0)

    assert not leak.check(ones, X, MASK).ok
    assert "No mask came with this array" in str(leak.check(ones, X, MASK))


def test_an_output_without_a_real_entry_is_no_proof():
    report = leak.check(lambda x, mask: (x.mean(1), jnp.zeros(3, bool)), X, MASK)
    assert not report.ok
    assert "nothing in it is real" in str(report)


def test_a_structure_that_changes_with_the_shape_is_a_finding():
    def odd(x, mask):
        return (x, mask) if x.shape[1] % 2 else x

    assert "structure changes" in str(leak.check(odd, X, MASK))

    def shrinks(x, mask):
        return jnp.zeros((3, 20 - x.shape[1]))

    assert "shrinks" in str(leak.check(shrinks, X, MASK))


# --------------------------------------------------------------------------------- modules


class Normalised(nnx.Module):
    def __init__(self):
        self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(1))

    def __call__(self, x, mask):
        self.dropout(x)
        return jm.ops.each_step(self.norm, x, mask)


def test_a_module_in_training_mode_is_left_as_it_was():
    module = Normalised()
    module.train()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)))
    count = int(module.dropout.rngs.count[...])
    report = leak.check(module, X, MASK)
    after = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert int(module.dropout.rngs.count[...]) == count
    # Copies of real steps count twice in the statistics, and so does what is appended.
    assert {f.where for f in report.witnesses if f.what == "statistics"} == {
        "statistics['norm']['mean']",
        "statistics['norm']['var']",
    }


def test_a_jaxmask_model_passes_with_its_parameters():
    model = jm.nn.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), jnp.tanh, jm.nn.GlobalMeanPool())
    report = leak.check(model, X, MASK, moves=ALL_MOVES)
    assert report.ok, str(report)
    assert "gradients in params" in str(report)


# ---------------------------------------------------------------------- what is not tested


def test_a_function_of_one_time_length_says_so():
    def flat(x, mask):
        return safe(x, mask).reshape(3, 10) @ np.ones((10, 2), np.float32)

    report = leak.check(flat, X, MASK)
    assert report.ok
    assert "not tested: 1 step of padding appended: the function failed with" in str(report)
    with pytest.raises(ValueError, match="nothing to try"):
        leak.check(flat, X, np.ones((3, 5), bool))


def test_a_function_without_gradients_is_tested_without_them():
    def doubles(x, mask):
        total = safe(x, mask).sum(1)
        start = (mask.sum() * 0, total)
        _, total = jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2), start)
        return total, mask.any(1)

    report = leak.check(doubles, X, MASK)
    assert report.ok
    assert "not tested: gradients: they cannot be taken" in str(report)

    def leaking(x, mask):
        return doubles(x, jnp.ones_like(mask))

    assert not leak.check(leaking, X, MASK).ok


# ----------------------------------------------------------------------- report and errors


def test_the_report_says_where_and_by_how_much():
    x = np.arange(1, 7, dtype=np.float32).reshape(1, 6)
    mask = np.arange(6)[None] < 3
    report = leak.check(lambda x, mask: (x.sum(1), mask.any(1)), x, mask)
    found = [f for f in report.witnesses if f.under == "zeros in the padding" and f.what == "value"]
    # 1 + 2 + 3, and three copies of 1 in the padding; zeros there take the copies away.
    assert [(f.where, f.index, f.expected, f.got) for f in found] == [("output[0]", (0,), 9.0, 6.0)]
    text = str(report)
    assert "value of output[0] at (0,): expected 9, got 21, under the padding as given" in text
    assert "A sum or mean over an axis with padding; alone it moves output[0] by up to " in text
    assert "input: x float32 [1, 6]; mask [1, 6], 3 of 6 steps real" in text


def test_a_pass_states_its_scope():
    text = str(leak.check(jm.pool.mean, X, MASK, moves=("left",)))
    assert (
        "proved at the given shape, whatever padding holds: mask of output[1]; value of output[0]"
        in text
    )
    assert "nan in the padding" not in text
    text = str(leak.check(jm.pool.mean, X, MASK, moves=("left",), poison="all"))
    assert "no leak found" in text
    assert "This holds for these shapes, this mask and what was tried." in text
    for tried in ("nan in the padding", "3 steps of padding appended", "moved to the left"):
        assert tried in text


@pytest.mark.parametrize(
    ("fn", "hint"),
    [
        (times_mask, "0 * nan is nan"),
        (root_with_where_after, "jm.ops.each_step"),
        (mask_of_its_own, "A mask is made from the mask that came in"),
        (divides_by_padded_length, "A number that follows from the padded length"),
        (backward_pass_reaches_padding, "custom_vjp"),
        (mask_lost, "No mask came with this array"),
    ],
)
def test_the_hint_fits_the_leak(fn, hint):
    assert hint in str(alone(fn))


def test_assert_raises_the_report_and_it_is_the_same_each_time():
    with pytest.raises(AssertionError) as caught:
        leak.assert_padding_invariant(naive_mean, X, MASK)
    assert isinstance(caught.value, leak.LeakError)
    assert str(caught.value) == str(alone(naive_mean))
    leak.assert_padding_invariant(jm.pool.mean, X, MASK)


def test_debugging_for_nan_does_not_trip_over_the_poison():
    with jax.debug_nans(True), jax.debug_infs(True):
        assert leak.check(lambda x, mask: (x, mask), X, MASK).ok


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"mask": None}, ValueError, "got None"),
        ({"mask": MASK.astype(int)}, TypeError, "must be boolean"),
        ({"mask": MASK[:, :4]}, jm.MaskError, "leading axes"),
        ({"mask": np.zeros_like(MASK)}, ValueError, "no step as real"),
        ({"x": ()}, ValueError, "at least one array"),
        ({"x": [1.0, 2.0]}, TypeError, "JAX or NumPy array"),
        ({"x": jax.random.split(jax.random.key(0), (3, 5))}, TypeError, "numbers"),
        ({"moves": ("right",)}, ValueError, "'left', 'holes', 'empty', 'permute'"),
        ({"fn": 3}, TypeError, "must be a function"),
        ({"fn": lambda x, mask: None}, ValueError, "at least one array"),
        ({"params": {"key": jax.random.key(0)}}, TypeError, "numbers"),
        ({"fn": Wrapped(jnp.tanh), "params": {}}, ValueError, "holds its own parameters"),
    ],
)
def test_wrong_arguments_are_refused(change, error, text):
    arguments = {"fn": jm.pool.mean, "x": X, "mask": MASK} | change
    with pytest.raises(error, match=text):
        leak.check(**arguments)


def test_masks_of_several_lengths_are_for_prove_or_one_after_the_other():
    x, z, real = np.ones((2, 3, 2)), np.ones((2, 4, 2)), np.ones((2, 4), bool)
    mask = np.array([[True, True, False], [True, False, False]])

    def means(arrays, masks):
        return [jm.pool.mean(*pair) for pair in zip(arrays, masks, strict=True)]

    for masks in ([mask, real], (mask, real)):
        with pytest.raises(TypeError, match=r"one mask for all of `x`, got a .* of 2.*leak\.prove"):
            jm.leak.assert_padding_invariant(means, [x, z], masks)
    assert jm.leak.prove(means, [x, z], [mask, real]).verdict == "proved"
    assert jm.leak.check(lambda x, mask: means([x, z], [mask, real]), x, mask).ok
    with pytest.raises(TypeError, match="must be a boolean array, got list"):
        jm.leak.check(jm.pool.mean, x, mask.tolist())


def test_traced_arguments_are_refused():
    with pytest.raises(TypeError, match="outside of `jit`"):
        jax.jit(functools.partial(leak.check, jm.pool.mean))(X, MASK)


def test_what_the_function_raises_at_the_given_shape_is_raised():
    def broken(x, mask):
        raise KeyError("weights")

    with pytest.raises(KeyError, match="weights"):
        leak.check(broken, X, MASK)
