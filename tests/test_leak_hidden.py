"""What hides a leak: a compiler that mends it, a tolerance for many entries, few contents tried.

The other half is as much of a test: right functions whose rounding is large pass.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import primitives

import jaxmask as jm
from jaxmask import leak
from jaxmask.leak import _barriers as barriers
from tests.mutants import hidden
from tests.mutants.hidden import filled

MASK = np.arange(6) < np.array([[6], [4], [2]])
X = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
LONG = np.arange(100) < np.array([[100], [60], [7]])


def caught(report):
    """The keys of a dict of outputs that hold a wrong value."""
    wheres = (f.where for f in report.witnesses if f.what == "value")
    return {where.split("'")[1] for where in wheres}


def side_by_side(fns):
    """Functions that give one number a row, each as an output of its own."""
    return lambda x, mask: {name: (fn(x, mask), mask.any(1)) for name, fn in fns.items()}


# ------------------------------------------------------------------------ what XLA mends


@pytest.fixture(scope="module")
def products():
    return leak.check(side_by_side(hidden.PRODUCTS), X, MASK, poison="all")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", hidden.PRODUCTS)
def test_a_product_with_a_mask_is_caught_however_it_is_spelled(products, name):
    assert name in caught(products)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_products_in_half_precision(dtype):
    report = leak.check(side_by_side(hidden.PRODUCTS), jnp.asarray(X, dtype), MASK)
    assert caught(report) == set(hidden.PRODUCTS)


def test_the_compiled_program_alone_passes_them(products):
    """Else there is nothing to show here."""
    poison = np.where(MASK, X, np.nan)
    right = [n for n, f in hidden.PRODUCTS.items() if np.isfinite(jax.jit(f)(poison, MASK)).all()]
    assert len(right) >= 12
    under = {f.under for f in products.witnesses if f"'{right[0]}'" in f.where}
    assert "operation by operation, nan in the padding" in under
    assert "nan in the padding" not in under
    alone = leak.check(hidden.PRODUCTS[right[0]], X, MASK, poison="all")
    assert "0 * nan is nan" in str(alone)


def test_a_product_in_the_gradient_alone():
    report = leak.check(hidden.PRODUCT_IN_THE_GRADIENT, X, MASK)
    assert {f.what for f in report.witnesses} == {"gradient in x"}
    assert "nan" in report.witnesses[0].under


def test_a_full_mask_is_tried_in_a_longer_row():
    report = leak.check(side_by_side(hidden.PRODUCTS), X, np.ones_like(MASK))
    assert caught(report) == set(hidden.PRODUCTS)


# --------------------------------------------------------------------------- tolerances


def test_padded_length_in_bfloat16():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 100, 2)), jnp.bfloat16)
    for fn in (hidden.by_padded_length, hidden.by_root_of_padded_length):
        assert {f.move for f in leak.check(fn, x, LONG).witnesses} == {"append"}


@pytest.mark.parametrize(
    "fn", [hidden.small_feature, hidden.small_row, hidden.small_row_without_a_mask]
)
def test_a_small_entry_beside_large_ones(fn):
    x = np.random.default_rng(0).normal(size=(3, 100)).astype(np.float32)
    report = leak.check(fn, x, LONG)
    first = next(f for f in report.witnesses if f.what == "value")
    assert first.index[-1] == (2 if fn is not hidden.small_feature else 1)
    assert "1 step of padding appended" in {f.under for f in report.witnesses}


def test_a_small_gradient_beside_a_large_one():
    report = leak.check(hidden.small_gradient, X, MASK, params=(np.float32(1), np.float32(1)))
    assert {f.where for f in report.witnesses} >= {"params[1]"}
    assert "params[0]" not in {f.where for f in report.witnesses}
    both = leak.check(hidden.small_entry_of_a_gradient, X, MASK, params=np.ones(2, np.float32))
    found = [f.index for f in both.witnesses if f.where == "params"]
    assert found
    assert set(found) == {(1,)}


# ------------------------------------------------------------------- contents of the padding


def test_each_kind_of_content_is_tried():
    fns = {name: hidden.reads(seen) for name, seen in hidden.CONTENTS.items()}
    report = leak.check(lambda x, m: {n: f(x, m) for n, f in fns.items()}, X, MASK)
    assert caught(report) == set(hidden.CONTENTS)


def test_each_kind_of_id_is_tried():
    ids = np.random.default_rng(0).choice([2, 4, 8], size=(3, 6))
    fns = {name: hidden.reads(seen) for name, seen in hidden.IDS.items()}
    report = leak.check(lambda x, m: {n: f(x, m) for n, f in fns.items()}, ids, MASK)
    assert caught(report) == set(hidden.IDS)


def test_what_cleans_its_input_still_leaks_what_is_finite():
    fns = {
        "nan_to_num": lambda x, m: jnp.nan_to_num(x).sum(1),
        "isfinite": lambda x, m: jnp.where(jnp.isfinite(x), x, 0).sum(1),
        "clip": lambda x, m: jnp.clip(jnp.nan_to_num(x), -1, 1).sum(1),
        "branch": lambda x, m: jnp.where(jnp.isnan(x).any(), filled(x, m), x).sum(1),
        "small only": lambda x, m: jnp.where(jnp.abs(x) < 1e-3, x, filled(x, m)).sum(1),
    }
    assert caught(leak.check(side_by_side(fns), X, MASK)) == set(fns)


# ---------------------------------------------------------------- right, and hard to compute


def mean(x, mask):
    return filled(x, mask).sum(1) / jnp.maximum(mask.sum(1), 1)[:, None]


def variance(x, mask):
    x = filled(x, mask)
    return mean((x - mean(x, mask)[:, None]) ** 2, mask), mask.any(1)


def variance_by_squares(x, mask):
    x = filled(x, mask)
    return mean(x * x, mask) - mean(x, mask) ** 2, mask.any(1)


def softmax(x, mask):
    real = mask[..., None]
    top = jax.lax.stop_gradient(jnp.where(real, x, -jnp.inf).max(1, keepdims=True))
    e = jnp.where(real, jnp.exp(jnp.where(real, x - top, 0)), 0)
    return e / e.sum(1, keepdims=True), mask


def logsumexp(x, mask):
    return jax.nn.logsumexp(x, axis=1, where=mask[..., None]), mask.any(1)


def moving_sum(x, mask):
    """By differences of a running sum, which lose what the sum has in front."""
    total = jnp.cumsum(filled(x, mask), axis=1)
    before = jnp.pad(total, ((0, 0), (3, 0), (0, 0)))[:, :-3]
    return filled(total - before, mask), mask


def layer_norm(x, mask):
    x = filled(x, mask)
    centred = x - x.mean(-1, keepdims=True)
    return filled(centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-12), mask), mask


def far_from_zero(x, mask):
    return mean(x + 1e4, mask) - 1e4, mask.any(1)


HARD = (variance, variance_by_squares, softmax, logsumexp, moving_sum, layer_norm, far_from_zero)
DATA = {
    "plain": lambda n: n,
    "near constant": lambda n: 1000 + 1e-3 * n,
    "large": lambda n: 60 * n,
    "tiny": lambda n: 1e-10 * n,
    "of all scales": lambda n: n * 10.0 ** np.arange(-3, 5, 2),
}


@pytest.mark.sampled(7)
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, "float32") for kind in DATA), ("plain", "bfloat16"), ("of all scales", "float16")],
)
def test_what_rounds_a_lot_passes(kind, dtype):
    x = DATA[kind](np.random.default_rng(1).normal(size=(3, 100, 4)))

    def fn(xs, mask):
        return [f(x, mask) for f, x in zip(HARD, xs, strict=True)]

    report = leak.check(fn, [jnp.asarray(x, dtype)] * len(HARD), LONG, moves=("left",))
    assert report.ok, str(report)


def test_long_sums_and_ties_pass():
    x = np.random.default_rng(2).normal(size=(2, 2000, 1)).astype(np.float32)
    mask = np.arange(2000) < np.array([[2000], [900]])

    def fn(x, mask):
        nearly = jnp.where(mask[..., None], jnp.round(jnp.tanh(x) * 4) / 4, -2)
        total = moving_sum(x, mask)
        return jm.ops.cumsum(x, mask), total, (nearly.argmax(1), mask.any(1))

    report = leak.check(fn, x, mask)
    assert report.ok, str(report)


def test_entries_that_are_lost_in_rounding_are_named():
    def chaos(x, mask):
        def step(h, inputs):
            x_t, real = inputs
            return jnp.where(real, 3.9 * h * (1 - h) + 0 * x_t, h), None

        start = jnp.full_like(x[:, 0], 0.4)
        return jax.lax.scan(step, start, (filled(x, mask).T, mask.T))[0], mask.any(1)

    x = np.random.default_rng(3).normal(size=(3, 100)).astype(np.float32)
    report = leak.check(chaos, x, LONG)
    assert report.ok, str(report)
    assert "entries are hardly larger than their rounding" in str(report)


# ----------------------------------------------------------------- barriers between operations


def test_programs_give_the_same_with_barriers_between_operations():
    def fn(x, mask):
        def step(h, inputs):
            h = jax.lax.cond(inputs[1].all(), jnp.tanh, lambda h: h * 0.5, h + inputs[0])
            return h, h

        h, ys = jax.lax.scan(step, x[:, 0], (x.T, mask.T), reverse=True)
        n, total = jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * h), (0, h))
        return n, total, ys, jnp.sort(x, axis=1), jax.nn.relu(x), x.astype(jnp.complex64) * 1j

    program = jax.make_jaxpr(fn)(X, MASK)
    run = jax.jit(lambda factors, *args: barriers.run_with_barriers(program, factors, *args))
    once = run(barriers.factors(0), X, MASK)
    for want, got in zip(fn(X, MASK), once, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
        assert np.asarray(got).dtype == np.asarray(want).dtype
    rounded = run(barriers.factors(1), X, MASK)
    for want, got in zip(once, rounded, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4)
    assert (np.asarray(rounded[2]) != np.asarray(once[2])).any()


def test_counts_are_not_rounded_anew():
    def fn(mask):
        ones = mask.astype(jnp.float32)
        return jnp.cumsum(ones, 1) * 2 - 1, (ones.sum(1) @ ones).astype(int)

    program = jax.make_jaxpr(fn)(MASK)
    run = jax.jit(lambda factors, mask: barriers.run_with_barriers(program, factors, mask))
    for a, b in zip(run(barriers.factors(0), MASK), run(barriers.factors(1), MASK), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_check_runs_under_jax_s_strict_options():
    flags = jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise")
    with flags[0], flags[1], jax.enable_checks(True), jax.check_tracer_leaks(True):
        for x in (X, X.astype(np.complex64)):
            report = leak.check(jm.pool.mean, x[..., None], MASK)
            assert report.ok, str(report)
            assert not report.not_tested


def test_the_names_of_operations_are_known_to_jax():
    known = {getattr(primitives, name).name for name in dir(primitives) if name.endswith("_p")}
    listed = (
        barriers.CALLS
        | barriers.MOVING
        | barriers.EXACT
        | barriers.RING
        | barriers.SUMS
        | set(barriers.CONTROL)
    )
    here = {"optimization_barrier", "split", "stack", "custom_vmap_call"}  # not exported
    elsewhere = {"pjit", "checkpoint", "remat2"}  # one name for each release
    assert listed - known - here - elsewhere == set()


def test_a_program_that_cannot_have_barriers_is_checked_all_the_same(monkeypatch):
    def refuse(*args):
        raise NotImplementedError("no rule")

    monkeypatch.setattr("jaxmask.leak._program.Stepwise.__call__", refuse)
    report = leak.check(jm.pool.mean, X[..., None], MASK)
    assert report.ok, str(report)
    assert "not tested: operation by operation: NotImplementedError: no rule" in str(report)
    assert not leak.check(hidden.by_padded_length, X[..., None], MASK).ok


def test_what_only_other_real_values_show_is_said():
    def maximum(x, mask):
        return filled(x, mask).max(1), mask.any(1)

    assert not leak.check(maximum, -np.abs(X), MASK).ok
    report = leak.check(maximum, np.abs(X), MASK)
    assert report.ok
    assert "none of `x` is below 0" in str(report)
