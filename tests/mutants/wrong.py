"""Wrong layers, each one step away from a right one, and the law that must catch it."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import masks, ops
from tests.mutants.blocks import BLOCKS
from tests.mutants.layer import Subject, clean, rows, steps, subject, with_params
from tests.mutants.right import SCALE, WEIGHT, attention, centre, neighbours, normalised, scanned
from tests.registry import Entry, Input
from tests.registry.entry import simple

NOTHING, ROW_ALONE, ZERO = "padding_changes_nothing", "row_alone", "zero_padding"
LAYOUTS, SLOPES, WIDER = "layouts", "gradients_are_slopes", "more_padding"


@jax.custom_vjp
def tripled(x):
    return 2 * x


tripled.defvjp(lambda x: (2 * x, None), lambda _, g: (6 * g,))


def by_lengths(real):
    """A mask rebuilt from its count, as if every row were right-padded."""
    return jnp.arange(real.shape[1]) < jnp.sum(real, axis=1, keepdims=True)


def unmasked_scan(x, *, reverse=False):
    return scanned(x, jnp.ones(x.shape[:2], bool), reverse=reverse)


def single_where_scan(x, real):
    """The state is held, but the step runs on what stands in the padding."""

    def step(h, inputs):
        x_t, real_t = inputs
        h = jnp.where(real_t[:, None], jnp.tanh(h + x_t), h)
        return h, h

    start = jnp.zeros((x.shape[0], x.shape[2]), x.dtype)
    _, y = jax.lax.scan(step, start, (jnp.swapaxes(x, 0, 1), real.T))
    return jnp.swapaxes(y, 0, 1)


def strided(x, real):
    """Every second step of the array as it lies."""
    return neighbours(x, real)[:, ::2], real[:, ::2]


def bidirectional_stride(x, real):
    ahead, out = strided(x, real)
    back, _ = strided(jnp.flip(clean(x, real), 1), jnp.flip(real, 1))
    return steps(ahead + jnp.flip(back, 1), out)


def noise(shape):
    return jax.random.normal(jax.random.key(0), shape)


def variance(x, n):
    mean = x.sum(1, keepdims=True) / n
    return jnp.sum((x - mean) ** 2, axis=1, keepdims=True) / n


def unchecked(name, body, law):
    """A function that skips the checks of a pair."""
    return Subject(name, Entry(name, simple(body), (Input(),)), law, leaks=False)


@jax.custom_vjp
def power(x, real):
    return clean(clean(x, real, 1) ** 1.5, real)


# The first gradient is right; its own gradient meets the padding under the root.
power.defvjp(
    lambda x, real: (power(x, real), (x, real)),
    lambda kept, g: (clean(1.5 * g * jnp.sqrt(kept[0]), kept[1]), None),
)


VALUES = [
    subject("mean over the batch", lambda x, r: steps(x - x.mean(0), r), NOTHING),
    subject("mean over padded time", lambda x, r: steps(x - x.mean(1, keepdims=True), r), NOTHING),
    subject("multiplied by the mask", lambda x, r: rows((x * r[..., None]).sum(1), r), NOTHING,
            pooled=True),
    subject("divided by padded time", lambda x, r: rows(clean(x, r).sum(1) / max(x.shape[1], 1), r),
            ROW_ALONE, pooled=True),
    subject("reads a step of padding", lambda x, r: steps(x + jnp.roll(x, -1, 1), r), NOTHING),
    subject("physical flip", lambda x, r: (jnp.flip(clean(x, r), 1), jnp.flip(r, 1) & r),
            LAYOUTS),
    subject("nan_to_num", lambda x, r: rows(jnp.nan_to_num(x).sum(1), r), NOTHING, pooled=True),
    subject("running sum over padding", lambda x, r: steps(jnp.cumsum(x, 1), r), NOTHING,
            moves=("left",)),
    subject("scan over padding, backward",
            lambda x, r: steps(unmasked_scan(x, reverse=True)[1], r), NOTHING),
    subject("bidirectional scan over padding",
            lambda x, r: steps(unmasked_scan(x)[1] + unmasked_scan(x, reverse=True)[1], r),
            NOTHING),
    subject("last physical step", lambda x, r: rows(x[:, -1] if x.shape[1] else x.sum(1), r),
            NOTHING, pooled=True),
    subject("carry of the last physical step",
            lambda x, r: rows(unmasked_scan(clean(x, r, 1))[0], r), ROW_ALONE, pooled=True),
    subject("softmax with the largest of the padding",
            lambda x, r: steps(jnp.where(r[..., None], jnp.exp(x - x.max(1, keepdims=True)), 0), r),
            NOTHING),
    subject("keys not masked", lambda x, r: steps(attention(x, jnp.ones_like(r)), r), NOTHING),
    subject("keys zeroed, not masked",
            lambda x, r: steps(attention(clean(x, r), jnp.ones_like(r)), r), ROW_ALONE),
    subject("zero as the identity of max",
            lambda x, r: rows(jnp.max(clean(-jnp.abs(x), r), axis=1), r), ROW_ALONE,
            pooled=True),
    subject("zero as the identity of min",
            lambda x, r: rows(jnp.min(clean(jnp.abs(x), r), axis=1), r), ROW_ALONE,
            pooled=True),
    subject("zero as the identity of logsumexp",
            lambda x, r: rows(jnp.log(jnp.sum(jnp.exp(clean(x, r)), axis=1) + 1e-9), r), ROW_ALONE,
            pooled=True),
    subject("zero as the identity of a product",
            lambda x, r: rows(jnp.prod(clean(x, r), axis=1), r), ROW_ALONE, pooled=True),
    subject("sorted with padding in front", lambda x, r: steps(jnp.sort(clean(x, r), axis=1), r),
            ROW_ALONE),
    subject("variance over padded time",
            lambda x, r: steps(centre(clean(x, r), r)
                               * jax.lax.rsqrt(variance(clean(x, r), max(x.shape[1], 1)) + 1), r),
            ROW_ALONE),
    subject("norm over time and padding",
            lambda x, r: steps(x / (1 + jnp.abs(x).max((1, 2), keepdims=True)), r), NOTHING),
    subject("noise over the padded shape",
            lambda x, r: steps(x + noise(x.shape).astype(x.dtype), r), WIDER),
    subject("noise by physical position",
            lambda x, r: steps(x + noise((100, 3))[: x.shape[1]].astype(x.dtype), r), LAYOUTS,
            moves=("left",)),
    subject("physical positions",
            lambda x, r: steps(x * jnp.cos(jnp.arange(x.shape[1]))[:, None].astype(x.dtype), r),
            LAYOUTS, moves=("left",)),
    subject("positions from the end",
            lambda x, r: steps(x * jnp.cos(jnp.arange(x.shape[1])[::-1])[:, None], r),
            WIDER),
    subject("physical neighbours", lambda x, r: steps(neighbours(x, r), r), LAYOUTS,
            moves=("holes",)),
    subject("strided bidirectional", bidirectional_stride, WIDER, mask_class="right"),
    subject("one number for all rows", lambda x, r: steps(x * r.mean().astype(x.dtype), r),
            ROW_ALONE),
    subject("a full batch is another case",
            lambda x, r: steps(jnp.where(r.all(), x, 2 * x), r), ROW_ALONE,
            lengths=(5, 5, 5, 5)),
    subject("the number of the row counts",
            lambda x, r: steps(x + jnp.arange(x.shape[0])[:, None, None].astype(x.dtype), r),
            ROW_ALONE, leaks=False),
]  # fmt: skip

MASKS = [
    subject("mask all False", lambda x, r: (clean(x, r), jnp.zeros_like(r)), "no_mask"),
    subject("mask all True", lambda x, r: (clean(x, r), jnp.ones_like(r)), ROW_ALONE),
    subject("mask without the last real step",
            lambda x, r: steps(x, r & (masks.positions(r) < r.sum(1, keepdims=True) - 1)),
            "no_mask", leaks=False),
    subject("mask as lengths", lambda x, r: steps(clean(x, r), by_lengths(r)), LAYOUTS,
            moves=("left",)),
    subject("mask inverted", lambda x, r: (clean(x, r), ~r), "no_mask"),
    subject("mask moved by a step", lambda x, r: (clean(x, r), jnp.roll(r, 1, 1)), ROW_ALONE),
    subject("row mask always True", lambda x, r: (clean(x, r).sum(1), jnp.ones_like(r[:, 0])
                                                  if r.shape[1] else r.any(1)),
            "empty_rows", pooled=True, leaks=True, moves=("empty",)),
    subject("padding of the result not zero", lambda x, r: (jnp.cos(clean(x, r)), r), ZERO,
            leaks=False),
    Subject("mask dropped", Entry("mask dropped", lambda p, xs, ms, rows: [(xs[0] * 2, None)]),
            NOTHING),
    unchecked("mask broadcast", lambda x, m: (jnp.where(jnp.asarray(m)[..., None], x, 0), m),
              "bad_masks_are_refused"),
    unchecked("float mask taken", lambda x, m: (clean(x, jnp.asarray(m) > 0), m),
              "bad_masks_are_refused"),
    Subject("segments taken for one row",
            Entry("segments taken for one row",
                  lambda p, xs, ms, rows: [(ops.cumsum(xs[0], masks.as_bool(ms[0]))[0], ms[0])]),
            "segments", leaks=False),
]  # fmt: skip

GRADIENTS = [
    subject("sqrt under a single where",
            lambda x, r: steps(jnp.sqrt(x), r), NOTHING, kind="positive"),
    subject("division under a single where", lambda x, r: steps(1 / x, r), NOTHING,
            kind="positive"),
    with_params("dense under a single where", lambda w, x, r: steps((x @ w).astype(x.dtype), r),
                WEIGHT, NOTHING),
    with_params("norm under a single where",
                lambda w, x, r: steps((normalised(x) * w).astype(x.dtype), r), SCALE, NOTHING),
    subject("held state under a single where", lambda x, r: steps(single_where_scan(x, r), r),
            NOTHING),
    subject("custom gradient three times too large",
            lambda x, r: steps(tripled(clean(x, r)), r), SLOPES, leaks=False),
    subject("gradient stopped", lambda x, r: steps(jax.lax.stop_gradient(x) * 2 + x, r), SLOPES,
            leaks=False),
    with_params("gradient of a parameter stopped",
                lambda w, x, r: steps((clean(x, r) @ jax.lax.stop_gradient(w)).astype(x.dtype), r),
                WEIGHT, SLOPES, leaks=False),
    subject("gradient into the padding",
            lambda x, r: (clean(x, r) + x - jax.lax.stop_gradient(x), r),
            "zero_gradient_at_padding", leaks=False),
    subject("gradient by the padded length",
            lambda x, r: steps(scaled_gradient(clean(x, r), 1 / max(x.shape[1], 1)), r), SLOPES),
    subject("second derivative under a single where",
            lambda x, r: (power(x, r), r),
            "second_derivatives", leaks=False, kind="positive"),
    subject("nan of a real step hidden", lambda x, r: rows(jnp.nan_to_num(clean(x, r)).sum(1), r),
            "nan_stays_in_its_row", pooled=True, leaks=False),
    subject("mean of an empty row is nan",
            lambda x, r: (clean(x, r).sum(1) / r.sum(1)[:, None], r.any(1)), "empty_rows",
            pooled=True, leaks=True, moves=("empty",)),
    subject("float32 whatever comes in",
            lambda x, r: steps(clean(x, r) * np.float32(2) + noise(()), r),
            "half_precision", leaks=False),
]  # fmt: skip


def largest(x, real):
    """The largest real value, by a rule whose gradient compares each value with the result."""
    return jnp.max(clean(x, real, -jnp.inf), axis=1, initial=-jnp.inf)


PROGRAMS = [
    subject("gradient of a maximum by equality", lambda x, r: rows(largest(x, r), r), "composed",
            pooled=True, leaks=False),
    subject("norm summed in half precision",
            lambda x, r: steps(clean(x, r) / jnp.sqrt(1 + summed(clean(x, r) ** 2)), r),
            "half_precision_at_scale", leaks=False),
]  # fmt: skip


def summed(x):
    """The sum of the features, each partial sum in the dtype of `x`."""
    return sum(x[..., i : i + 1] for i in range(x.shape[-1]))


def scaled_gradient(x, factor):
    """`x`, with its gradient multiplied."""
    return factor * x + jax.lax.stop_gradient(x - factor * x)


WRONG = [*VALUES, *MASKS, *GRADIENTS, *PROGRAMS, *BLOCKS]
