"""`leak.check`: one finding for each mistake, with its line; and clear answers to bad input."""

import inspect
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from jaxmask.leak._tables import Tables

MASK = np.arange(5) < np.array([[5], [3], [2]])
IDS = np.random.default_rng(0).integers(1, 9, (3, 5))
X = np.random.default_rng(1).normal(size=(3, 5, 4)).astype(np.float32)


class Wrong(nnx.Module):
    """A classifier with three mistakes: attention, statistics and a mean that know no mask."""

    def __init__(self, rngs, *, zeroes_padding):
        self.zeroes_padding = zeroes_padding
        self.embed = nnx.Embed(9, 4, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, ids, mask):
        x = self.embed(ids)
        if self.zeroes_padding:
            x = jnp.where(mask[..., None], x, 0)
        x = x + self.attend(x)
        x = self.norm(x)
        x = nnx.relu(x).mean(axis=1)
        return self.out(x)


class Mended(nnx.Module):
    def __init__(self, rngs):
        self.embed = jm.nn.Embed(9, 4, rngs=rngs)
        self.attend = jm.nn.MultiHeadAttention(2, 4, rngs=rngs)
        self.norm = jm.nn.BatchNorm(4, rngs=rngs)
        self.pool = jm.nn.GlobalMeanPool()
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, ids, mask):
        x, mask = self.embed(ids, mask)
        x = x + self.attend(x, mask)[0]
        x, mask = self.norm(x, mask)
        x, mask = self.pool(nnx.relu(x), mask)
        return self.out(x)


def line_of(function, text):
    """The number of the line of a function that holds a text."""
    lines, first = inspect.getsourcelines(function)
    return first + next(k for k, line in enumerate(lines) if text in line)


MISTAKES = {
    "self.attend(x)": ("a softmax over time without a mask", "jm.nn.MultiHeadAttention"),
    "self.norm(x)": ("batch statistics over padding", "jm.nn.BatchNorm"),
    ".mean(axis=1)": ("a sum or mean over an axis with padding", "jm.nn.GlobalMeanPool"),
}


@pytest.mark.parametrize("zeroes_padding", [False, True])
def test_three_mistakes_are_three_findings(zeroes_padding):
    """Also where padding is zero, so that only its amount shows them."""
    model = Wrong(nnx.Rngs(0), zeroes_padding=zeroes_padding)
    report = jm.leak.check(model, IDS, MASK)
    assert len(report.findings) == 3, str(report)
    for finding, (text, (what, mend)) in zip(report.findings, MISTAKES.items(), strict=True):
        assert finding.place.file == __file__
        assert finding.place.line == line_of(Wrong.__call__, text)
        assert finding.what == what
        assert mend in finding.mend
        assert f"test_findings.py:{finding.place.line} " in str(report)
    amounts = [finding.moved for finding in report.findings]
    assert all(amount.startswith("output by up to ") for amount in amounts)
    assert len(set(amounts)) == 3


def test_the_mended_classifier_has_none():
    report = jm.leak.check(Mended(nnx.Rngs(0)), IDS, MASK)
    assert report.ok, str(report)
    assert report.findings == ()
    assert not report.undecided


def test_how_far_a_mistake_moves_a_result_is_what_mending_it_alone_changes():
    """Of two additive mistakes, each moves the result by its own share."""

    def both(x, mask):
        once = x.max(1)
        twice = 10 * x.sum(1)
        return once + twice, mask.any(1)

    x = np.where(MASK[..., None], X, 100).astype(np.float32)
    report = jm.leak.check(both, x, MASK)
    assert [f.what.split(" over")[0] for f in report.findings] == ["an extreme", "a sum or mean"]
    small, large = (float(f.moved.rpartition(" ")[2]) for f in report.findings)
    assert 0 < small < large


HANDS = {
    "window": (lambda x, m: (x + jnp.roll(x, 1, 1), m), None),
    "recurrence": (
        lambda x, m: (nnx.RNN(nnx.SimpleCell(4, 4, rngs=nnx.Rngs(0)))(x)[:, -1], m.any(1)),
        "jm.nn.RNN",
    ),
    "convolution": (
        lambda x, m: (nnx.Conv(4, 4, (3,), rngs=nnx.Rngs(0))(x), m),
        "window over the edge of the padding",
    ),
    "padded length": (
        lambda x, m: (jnp.where(m[..., None], x, 0).sum(1) / x.shape[1], m.any(1)),
        "padded length",
    ),
}


@pytest.mark.parametrize("name", HANDS)
def test_one_mistake_is_one_finding_in_this_file(name):
    function, words = HANDS[name]
    report = jm.leak.check(function, X, MASK)
    assert len(report.findings) == 1, str(report)
    assert report.findings[0].place.file == __file__
    assert words is None or words in str(report.findings[0])


def last_step(x, mask):
    h = jnp.tanh(x)
    last = h[:, -1]  # the mistake
    return last @ jnp.ones((4, 2)) + 1, mask.any(1)


def last_step_by_index(x, mask):
    h = jnp.tanh(x)
    last = h[jnp.arange(3), -1]  # the mistake
    return last @ jnp.ones((4, 2)) + 1, mask.any(1)


def first_step(x, mask):
    first = x[:, 0]  # the mistake
    return first * 2, mask.any(1)


def one_step_too_far(x, mask):
    last = x[jnp.arange(3), mask.sum(1) % 5]  # the mistake
    return last * 2, mask.any(1)


LAST = "the last step of the rectangle (`x[:, -1]`) taken where rows end earlier"
STEPS = {
    last_step: (LAST, "jm.pool.last", ()),
    last_step_by_index: (LAST, "jm.pool.last", ()),
    first_step: ("the first step of the rectangle", "jm.pool.first", ("left",)),
    one_step_too_far: ("points into the padding", "jm.pool.last", ()),
}


@pytest.mark.parametrize("function", STEPS)
def test_a_step_taken_from_the_padding_is_named_where_it_is_taken(function):
    """And not where what was taken meets something else."""
    what, mend, moves = STEPS[function]
    (finding,) = jm.leak.check(function, X, MASK, moves=moves).findings
    assert what in finding.what
    assert mend in finding.mend
    assert finding.place.line == line_of(function, "# the mistake")


def test_two_mistakes_on_one_line_are_both_named():
    report = jm.leak.check(lambda x, m: (x[:, -1] + x.max(1), m.any(1)), X, MASK)
    (finding,) = report.findings
    assert finding.what == f"{LAST} and an extreme over an axis with padding"
    assert "jm.pool.last" in finding.mend
    assert "jm.pool.max" in finding.mend


def test_the_last_step_of_full_rows_is_named_where_padding_is_appended():
    report = jm.leak.check(last_step, X, MASK | True)
    assert [finding.what for finding in report.findings] == [LAST]


def test_the_last_turn_of_a_loop_takes_no_last_step():
    def cells(x, mask):
        h = jnp.zeros((3, 4))
        for t in range(5):
            h = jnp.tanh(h + x[:, t])  # the mistake
        return h, mask.any(1)

    (finding,) = jm.leak.check(cells, X, MASK).findings
    assert "last step" not in finding.what
    assert finding.place.line == line_of(cells, "# the mistake")


def test_the_last_row_is_no_last_step():
    shifted = jm.leak.check(lambda x, m: (x + x[-1:], m), X, MASK)
    assert "step" not in shifted.findings[0].what, str(shifted)


def test_what_is_not_proved_and_not_seen_to_leak_is_undecided():
    report = jm.leak.check(lambda x, m: (jnp.sign(x * x + 1).sum(1) * 0, m.any(1)), X, MASK)
    assert not report.ok  # nan
    finite = jm.leak.check(
        lambda x, m: (jnp.sign(jnp.nan_to_num(x) ** 2 + 1).sum(1), m.any(1)), X, MASK
    )
    assert {(c.what, c.where) for c in finite.undecided} >= {("value", "output[0]")}
    assert all(c.verdict == "undecided" for c in finite.undecided)


def test_the_proof_replaces_the_poisons_and_all_runs_them():
    assert "in the padding" not in str(jm.leak.check(jm.pool.mean, X, MASK))
    assert "nan in the padding" in str(jm.leak.check(jm.pool.mean, X, MASK, poison="all"))
    with pytest.raises(ValueError, match="poison"):
        jm.leak.check(jm.pool.mean, X, MASK, poison="none")


# ------------------------------------------------------------------------------ bad input


def test_a_lambda_around_a_layer_with_state_is_told_to_pass_the_layer():
    dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"Pass the module itself"):
        jm.leak.check(lambda x, mask: (dropout(x), mask), X, MASK)


def test_a_function_that_differs_from_call_to_call_is_no_leak():
    draw, calls = np.random.default_rng(0), itertools.count()
    for function in (
        lambda x, mask: (x + draw.normal(size=4).astype(np.float32), mask),
        lambda x, mask: (x * next(calls), mask),
    ):
        with pytest.raises(ValueError, match="another function at each call"):
            jm.leak.check(function, X, MASK)


def test_without_padding_nothing_is_concluded_and_some_is_made():
    full = np.ones_like(MASK)
    text = str(jm.leak.check(jm.pool.mean, X, full))
    assert "nothing could be concluded" in text
    assert not jm.leak.check(lambda x, m: (x.mean(1), m.any(1)), X, full).ok


def test_a_mask_beside_values_of_another_shape_is_named():
    report = jm.leak.check(lambda x, m: (jm.pool.mean(x, m)[0], m), X, MASK)
    assert "output[1] is not read as the mask of output[0]" in str(report)


class Labels(nnx.Module):
    """Its mean knows the mask, and its table has 50 rows."""

    def __init__(self, embed, rngs, *, masks):
        self.embed, self.masks = embed, masks
        self.out = nnx.Linear(4, 3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, ids, mask):
        x = self.embed(ids)
        y = self.out(x)
        return (y * mask[..., None] if self.masks else y).sum(1), mask.any(1)


@pytest.mark.parametrize("masks", [True, False])
def test_a_leak_that_only_ids_outside_the_table_show_says_so(masks):
    model = Labels(nnx.Embed(50, 4, rngs=nnx.Rngs(0)), nnx.Rngs(1), masks=masks)
    finding, *_ = jm.leak.check(model, IDS, MASK).findings
    assert ("only ids outside the table of `nnx.Embed` (50 rows)" in finding.what) == masks
    assert ("Use `jm.nn.Embed` and call it with the mask" in finding.mend) == masks
    assert (finding.place.line == line_of(Labels.__call__, "self.embed(ids)")) == masks


def test_ids_outside_the_table_hide_no_leak_of_the_amount():
    embed = nnx.Embed(30, 4, rngs=nnx.Rngs(0))

    def weighed(ids, mask):
        x = embed(ids)
        x = x * ids.shape[1]
        weights = nnx.softmax(jnp.where(mask, 0.0, -1e9), 1)
        return (weights[..., None] * x).sum(1), mask.any(1)

    amount, outside = jm.leak.check(weighed, IDS, MASK).findings
    assert "the padded length" in amount.what
    assert amount.place.line == line_of(weighed, "ids.shape[1]")
    assert "only ids outside the table" in outside.what
    assert outside.place.line == line_of(weighed, "embed(ids)")


def test_ids_outside_the_table_are_no_other_mistake_than_a_sum_of_padding():
    model = Labels(nnx.Embed(50, 4, rngs=nnx.Rngs(0)), nnx.Rngs(1), masks=False)
    assert len(jm.leak.check(model, IDS, MASK).findings) == 1


def test_a_chain_of_flax_is_called_as_its_first_layer_is():
    for layers in (
        [nnx.Conv(4, 4, (3,), rngs=nnx.Rngs(0)), nnx.relu],
        [lambda x: x - x.max(1)[:, None]],
    ):
        (finding,) = jm.leak.check(nnx.Sequential(*layers), X, MASK).findings
        assert "window" in finding.what or "extreme" in finding.what
    assert jm.leak.check(nnx.Sequential(jm.pool.mean), X, MASK).ok


def test_ids_of_a_larger_table_are_inside():
    model = nnx.Embed(200, 4, rngs=nnx.Rngs(0))
    for ids in (-200, -100, -1, 0, 199):
        tables = Tables(model)
        tables.note("", [np.full_like(IDS, ids)], MASK)
        assert not tables.outside
    for closed in (model, lambda ids, mask: model(ids)):
        tables = Tables(closed)
        tables.note("", [np.full_like(IDS, 200)], MASK)
        assert tables.outside


def test_state_that_changes_is_named_by_its_path():
    model = Labels(nnx.Embed(50, 4, rngs=nnx.Rngs(0)), nnx.Rngs(1), masks=True)
    with pytest.raises(ValueError, match=r"closes over \(`drop.rngs.count` of `Labels`\)"):
        jm.leak.check(lambda x, mask: (model.drop(x), mask), X, MASK)


def test_parameters_with_the_same_verdict_take_one_line():
    params = [np.ones((), np.float32)] * 14
    proof = jm.leak.prove(
        lambda params, x, mask: (sum(params) * x.sum(1), mask.any(1)),
        X,
        MASK,
        params=params,
        witness=False,
    )
    text = str(proof)
    assert "gradient in params of params[0]: undecided; and 13 more parameter arrays" in text
    assert text.count("- gradient in params") == 1


def test_what_is_expected_has_a_reference():
    report = jm.leak.check(lambda x, mask: (x.sum(1), mask.any(1)), X, MASK)
    assert "expected: in the reference run, whose padding holds copies of" in str(report)
