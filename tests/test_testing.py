"""What users test their own layers with."""

import subprocess
import sys

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from jaxmask import testing

QUICK = hypothesis.settings(max_examples=100, deadline=None, database=None, derandomize=True)


def drawn(strategy, number=150):
    """What a strategy gives."""
    seen = []

    @hypothesis.settings(max_examples=number, deadline=None, database=None, derandomize=True)
    @hypothesis.given(strategy)
    def collect(value):
        seen.append(value)

    collect()
    return seen


def test_masks_have_every_kind_of_row():
    seen = drawn(testing.masks())
    assert all(m.dtype == bool and 1 <= len(m) <= 4 and 1 <= m.shape[1] <= 6 for m in seen)
    lengths = np.concatenate([m.sum(1) for m in seen])
    assert 0 in lengths
    assert any(m.all() for m in seen)
    assert any(not _contiguous(m).all() for m in seen)


def _contiguous(mask):
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(int), axis=1)
    return (edges == 1).sum(1) <= 1


@pytest.mark.parametrize("layout", ["right", "left"])
def test_masks_keep_to_the_layouts_that_are_named(layout):
    for mask in drawn(testing.masks(layouts=(layout,)), 100):
        mask = mask if layout == "right" else mask[:, ::-1]
        assert (np.diff(mask.astype(int)) <= 0).all()
    with pytest.raises(ValueError, match="masks: `layouts` must be one of"):
        drawn(testing.masks(layouts=("middle",)), 1)


def test_batches_hold_numbers_at_real_steps_and_poison_in_the_padding():
    found = set()
    for x, mask in drawn(testing.ragged_batches(features=(2,))):
        assert x.shape == (*mask.shape, 2)
        assert x.dtype == np.float32
        assert np.isfinite(x[mask]).all()
        assert (np.abs(x[mask]) < 10).all()
        found |= {str(value) for value in x[~mask].ravel()}
    assert found == {"0.0", "nan", "inf", "-inf", "1e+30"}
    found = set()
    for ids, mask in drawn(testing.ragged_batches(features=(), dtype=np.int32, high=3)):
        assert ids.shape == mask.shape
        assert set(ids[mask].tolist()) <= {0, 1, 2}
        found |= set(ids[~mask].tolist())
    assert found == {0, 2**31 - 1, -(2**31)}


@pytest.mark.parametrize("function", [jm.pool.max, jm.ops.cumsum, jm.ops.flip])
def test_right_functions_pass(function):
    jitted = jax.jit(function)
    for x, mask in drawn(testing.ragged_batches(batch=(2, 2), time=(1, 3)), 30):
        testing.assert_row_alone(jitted, x, mask)


def test_right_functions_are_lawful():
    for x, mask in drawn(testing.ragged_batches(batch=(2, 2), time=(3, 3)), 2):
        testing.assert_lawful(jm.ops.softmax, x, mask, moves=("left", "holes"))


WRONG = {
    "multiplies by the mask": lambda x, mask: (
        jnp.sum(jnp.asarray(x) * mask[..., None], axis=1),
        mask.any(1),
    ),
    "divides by the padded length": lambda x, mask: (
        jnp.sum(jnp.where(mask[..., None], x, 0), axis=1) / x.shape[1],
        mask.any(1),
    ),
    "flips the padded array": lambda x, mask: (x[:, ::-1], mask),
    "mixes rows": lambda x, mask: (
        x - jnp.mean(jnp.where(mask[..., None], x, 0), axis=0, keepdims=True),
        mask,
    ),
    "marks empty rows as real": lambda x, mask: (
        jm.pool.sum(x, mask)[0],
        jnp.ones(len(mask), bool),
    ),
    "loses a step of the mask": lambda x, mask: (x, mask & jnp.roll(mask, 1, axis=1)),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_functions_are_caught(name):
    @QUICK
    @hypothesis.given(testing.ragged_batches(batch=(2, 3), time=(2, 3)))
    def run(batch):
        testing.assert_row_alone(WRONG[name], *batch)

    with pytest.raises(AssertionError, match=r"row \d"):
        run()


def test_a_leak_that_rows_alone_do_not_show_is_found_by_poison():
    def hides_nan(x, mask):
        y, row_mask = jm.pool.mean(x, mask)
        leaked = jnp.sum(
            jnp.where(mask[..., None], 0, x)
        )  # 0 without padding, and with zeros in it
        return y + leaked, row_mask

    x, mask = np.ones((2, 3, 1), np.float32), np.array([[True, True, False], [True] * 3])
    x[~mask] = 0
    testing.assert_row_alone(hides_nan, x, mask)
    with pytest.raises(AssertionError):
        testing.assert_lawful(hides_nan, x, mask)


@pytest.mark.parametrize(("value", "wrong"), [(1.0, 1j), (300_000, 1)])
def test_imaginary_parts_and_large_ids_are_compared(value, wrong):
    """Neither is what a float with a tolerance can tell."""
    x, mask = np.full((1, 3), value), np.array([[True, True, False]])
    with pytest.raises(AssertionError, match="row 0 of the batch is not that row alone"):
        testing.assert_row_alone(lambda x, mask: (x + wrong * x.shape[1], mask), x, mask)


def test_what_is_no_pair_is_refused():
    x, mask = np.ones((1, 2, 1), np.float32), np.ones((1, 2), bool)
    with pytest.raises(TypeError, match="must return a pair"):
        testing.assert_row_alone(lambda x, mask: x, x, mask)
    with pytest.raises(TypeError, match="mask of the result must be a boolean array"):
        testing.assert_row_alone(lambda x, mask: (x, None), x, mask)


def test_it_is_an_attribute_that_is_imported_on_demand():
    assert jm.testing is testing
    code = (
        "import sys, jaxmask as jm; assert 'hypothesis' not in sys.modules; "
        "jm.testing.masks; assert 'hypothesis' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        jm.nothing  # noqa: B018


PROJECT = {
    "conftest.py": 'pytest_plugins = ["jaxmask.testing"]\n',
    "test_layers.py": """
import jax.numpy as jnp
import jaxmask as jm
import numpy as np
import pytest


@pytest.mark.padding_invariant(features=(2,), moves=("left",))
def test_right():
    return jm.pool.mean


@pytest.mark.padding_invariant
def test_wrong():
    return lambda x, mask: (x.max(1), mask.any(1))


@pytest.mark.padding_invariant
def test_returns_nothing():
    pass


@pytest.mark.padding_invariant(features=(), dtype="int32", high=3, batch=2, layout="left")
def test_the_batch_is_as_marked(ragged_batch):
    ids, mask = ragged_batch
    assert ids.shape == mask.shape == (2, 6)
    assert ids.dtype == np.int32 and ids.max() < 3
    assert mask[0].all() and mask[1].tolist() == [False] * 3 + [True] * 3
    return lambda ids, mask: (ids, mask)


@pytest.mark.padding_invariant(feature=(4,))
def test_no_such_option():
    return jm.pool.mean


@pytest.mark.padding_invariant((4,))
def test_without_a_name():
    return jm.pool.mean


@pytest.mark.padding_invariant(features=4)
def test_no_tuple():
    return jm.pool.mean


@pytest.mark.padding_invariant
def test_a_model_of_ids():
    return lambda ids, mask: jm.pool.mean(jnp.eye(5)[ids], mask)


def test_without_the_marker(ragged_batch):
    assert ragged_batch[0].shape == (3, 6, 4)
""",
}


def test_the_plugin_checks_what_marked_tests_return(tmp_path):
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "6 failed, 3 passed" in run.stdout, run.stdout + run.stderr
    assert "there is no option `feature`. Did you mean `features`? It takes `fe" in run.stdout
    assert "takes options by keyword alone, got (4,)" in run.stdout
    assert "must be a tuple such as (4,), got 4" in run.stdout
    hint = "x float32 [3, 6, 4]; if it takes token ids, mark it `padding_invariant(features=()"
    assert hint in run.stdout
    assert "An extreme over an axis with padding" in run.stdout
    assert "must return the function" in run.stdout


@pytest.mark.parametrize("missing", ["hypothesis", "pytest"])
def test_a_missing_extra_is_named(missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None
import jaxmask as jm
try:
    jm.testing
except ImportError as error:
    assert "pip install jaxmask[testing]" in str(error), error
else:
    raise SystemExit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
