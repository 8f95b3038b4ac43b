"""`leak.prove(of="amount")`: what is proved is the same with more padding, in numbers too."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from jaxmask.leak._proof import field
from jaxmask.leak._proof.amount import _longer
from tests import rows as tools
from tests.mutants.right import RIGHT
from tests.mutants.wrong import WRONG
from tests.proofs import arguments, prove
from tests.registry import REGISTRY
from tests.test_proof import ENDS, STEPS

X = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
MASK = np.arange(4) < np.array([[4], [2], [1]])
EXTRAS = (1, 2, 4)


# ------------------------------------------------------------------ arithmetic


def of_fraction(number):
    return number.numerator * pow(number.denominator, -1, field.P) % field.P


def test_sums_and_products_of_fractions_are_exact():
    draw = np.random.default_rng(0)
    a, b = (draw.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    a[0, 0], b[1, 1] = -(2.0**-130), 1e30
    exact_a, exact_b = (np.vectorize(lambda v: Fraction(float(v)), otypes="O")(v) for v in (a, b))
    one, two = field.of_numbers(a), field.of_numbers(b)
    for got, want in (
        (one, exact_a),
        (field.add(one, two), exact_a + exact_b),
        (field.add(one, field.negative(two)), exact_a - exact_b),
        (field.mul(one, field.power(two, -1)), exact_a / exact_b),
        (field.power(one, 3), exact_a**3),
        (field.total(one, (0,)), exact_a.sum(0)),
        (field.product(one, (0, 1)), exact_a.prod()),
        (field.einsum(one, [0, 1], two, [2, 1], [0, 2]), exact_a @ exact_b.T),
    ):
        expected = np.vectorize(of_fraction, otypes=[np.uint64])(want)
        np.testing.assert_array_equal(got, expected)
    integers = np.array([-3, 2**31 - 1, 7], np.int64)
    np.testing.assert_array_equal(
        field.of_numbers(integers), [field.P - 3, (2**31 - 1) % field.P, 7]
    )


def test_functions_of_numbers_differ_by_name_order_and_shape():
    one = np.arange(1000, dtype=np.uint64)
    two = one[::-1]
    seen = [
        *(field.mixed("a", one), field.mixed("b", one), field.mixed("a", one, two)),
        *(field.mixed("a", two, one), field.mixed("a", two)),
    ]
    for k, first in enumerate(seen):
        for second in seen[:k]:
            assert (first == second).mean() < 0.01
    assert field.of_all("x", one) != field.of_all("x", two)
    assert field.of_all("x", one) != field.of_all("x", one.reshape(10, 100))


# ------------------------------------------------------------------ functions


@pytest.mark.sampled(8)
@pytest.mark.parametrize(
    "entry", [e for e in REGISTRY if e.name.split(".")[0] in ("ops", "pool", "norm")], ids=str
)
def test_layer_functions_are_proved(entry):
    proof = prove(entry, "amount")
    assert proof.values == "proved", str(proof)


def by_padded_time(x, mask):
    return jnp.where(mask[..., None], x, 0).sum(1) / x.shape[1], mask.any(1)


def from_the_end(x, mask):
    return x + jnp.arange(x.shape[1])[::-1, None], mask


def mean_of_all(x, mask):
    return x.mean(1), mask.any(1)


def strided(x, mask):
    start = x.shape[1] % 2
    return jnp.where(mask[..., None], x, 0)[:, start::2], mask[:, start::2]


def largest_or_zero(x, mask):
    return jnp.where(mask[..., None], x, 0).max(1), mask.any(1)


def without_mask(x, mask):
    return jnp.where(mask[..., None], x, 1.0)


@pytest.mark.parametrize(
    "function",
    [by_padded_time, from_the_end, mean_of_all, strided, largest_or_zero, without_mask],
)
def test_what_depends_on_the_amount_is_not_proved(function):
    assert jm.leak.prove(function, X, MASK, of="amount").values == "undecided"


@jax.custom_vjp
def steeper(x):
    return x


steeper.defvjp(lambda x: (x, x), lambda x, g: (g * x.shape[1],))


def test_gradients_are_asked_apart():
    proof = jm.leak.prove(lambda x, m: jm.pool.mean(steeper(x), m), X, MASK, of="amount")
    assert (proof.values, proof.gradients) == ("proved", "undecided")
    assert "more padding on the right" in str(proof)
    assert "nothing of other amounts" in str(proof)
    proof = jm.leak.prove(lambda x, m: jm.pool.mean(x**2, m), X, MASK, of="amount")
    assert proof.verdict == "proved"


def test_it_needs_steps_and_takes_several_masks():
    with pytest.raises(ValueError, match=r"needs a mask \[batch, time\]"):
        jm.leak.prove(lambda x, m: (x, m), X, MASK.any(1), of="amount")

    def both(xs, masks):
        (a, a_mask), (b, b_mask) = (jm.pool.sum(x, m) for x, m in zip(xs, masks, strict=True))
        return a * b, a_mask & b_mask

    assert jm.leak.prove(both, [X, X[:, :3]], [MASK, MASK[:, :3]], of="amount").verdict == "proved"
    segments = jm.Segments(jnp.array([[1, 1, 2, 0]] * 3), 2)
    assert jm.leak.prove(jm.ops.cumsum, X, segments, of="amount").verdict == "proved"


# ------------------------------------------------------------------ soundness


def assert_the_same_in_numbers(proof, function, x, masks, params=None):
    """What is proved agrees with a run on longer rows, in values and gradients."""
    first = results(function, x, masks, params)
    proved = {(c.what, c.where) for c in proof.claims if c.verdict == "proved"} & set(first)
    for extra in EXTRAS if proved else ():
        longer = [_longer(leaf, extra) for leaf in x], [_longer(mask, extra) for mask in masks]
        other = results(function, *longer, params)
        for key in proved:
            np.testing.assert_allclose(
                first[key], other[key], rtol=2e-3, atol=1e-4, err_msg=str(key)
            )


def results(function, x, masks, params):
    floats = [k for k, leaf in enumerate(x) if leaf.dtype.kind == "f"]

    def call(given):
        arrays = [given[floats.index(k)] if k in floats else leaf for k, leaf in enumerate(x)]
        pairs = function(arrays, masks) if params is None else function(params, arrays, masks)
        pairs = [pair if isinstance(pair, tuple) else (pair, None) for pair in pairs]
        return [y for y, _ in pairs if jnp.issubdtype(y.dtype, jnp.floating)], pairs

    _, pull, pairs = jax.vjp(call, [jnp.asarray(x[k]) for k in floats], has_aux=True)
    found, sent = {}, []
    for k, (y, mask) in enumerate(pairs):
        real = np.asarray(True) if mask is None else np.asarray(mask) > 0
        name = f"output[{k}]" if mask is None else f"output[{k}][0]"
        found["value", name] = np.asarray(y)[real].astype(float)
        if jnp.issubdtype(y.dtype, jnp.floating):
            cotangent = np.zeros(y.shape)
            count = cotangent[real].size
            cotangent[real] = np.sin(np.arange(count)).reshape(cotangent[real].shape)
            sent.append(jnp.asarray(cotangent, y.dtype))
    (gradients,) = pull(sent) if sent else ([np.zeros(x[k].shape) for k in floats],)
    for k, gradient in zip(floats, gradients, strict=True):
        found["gradient in x", f"x[{k}]"] = np.asarray(gradient)[np.asarray(masks[k]) > 0]
    return found


@pytest.mark.sampled(8)
@pytest.mark.parametrize("mutant", [*WRONG, *RIGHT], ids=str)
def test_nothing_wrong_is_proved_of_mutants(mutant):
    masks = tools.masks_for(mutant.entry, "right", 6, [mutant.lengths])
    function, x, by_array = arguments(mutant.entry, masks=masks)
    x = [
        np.where(np.reshape(mask, mask.shape + (1,) * (leaf.ndim - mask.ndim)), leaf, 0)
        for leaf, mask in zip(x, map(np.asarray, by_array), strict=True)
    ]
    params = mutant.entry.params
    proof = jm.leak.prove(function, x, by_array, params=params, of="amount")
    assert_the_same_in_numbers(proof, function, x, list(map(np.asarray, by_array)), params)


def compare_random(numbers):
    proved = 0
    for number in numbers:
        draw = np.random.default_rng(number)
        names = draw.choice(sorted(set(STEPS) - {"slots", "scatter real"}), draw.integers(1, 5))
        end = str(draw.choice(sorted(ENDS)))
        mask = np.arange(4) < draw.integers(1, 5, (3, 1))

        def program(x, masks, names=names, end=end):
            y = x[0]
            for name in names:
                y = (AT_ANY_LENGTH | STEPS)[name](y, masks[0])
            return [ENDS[end](y, masks[0])]

        x = [np.where(mask[..., None], draw.normal(size=(3, 4, 2)), 0).astype(np.float32)]
        proof = jm.leak.prove(program, x, [mask], of="amount")
        proved += proof.values == "proved"
        assert_the_same_in_numbers(proof, program, x, [mask])
    return proved


# Those of `STEPS` that have the length written into them.
AT_ANY_LENGTH = {
    "recurrence": lambda x, m: jax.lax.scan(
        lambda h, v: (jnp.tanh(h + v),) * 2, jnp.zeros((3, 2)), x.swapaxes(0, 1)
    )[1].swapaxes(0, 1),
}


def test_what_is_proved_of_random_programs_holds():
    assert compare_random(range(12)) > 0


@pytest.mark.exhaustive
def test_what_is_proved_of_many_random_programs_holds():
    assert compare_random(range(100, 600)) > 50


def test_complex_numbers_keep_both_parts():
    numbers = np.array([1j, 2 + 1j, 2 - 1j, 2], np.complex64)
    assert len(set(field.of_numbers(numbers).tolist())) == 4
    square = field.mul(*[field.of_numbers(numbers[:1])] * 2)
    np.testing.assert_array_equal(square, field.of_numbers(np.array([-1.0])))
