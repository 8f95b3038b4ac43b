"""`leak.prove`: what it proves, what it convicts, and that it never proves what is not so."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxmask as jm
from jaxmask.leak._proof import verdict
from jaxmask.leak._proof.domain import Value
from jaxmask.leak._proof.interpret import RULES
from jaxmask.leak._rules.elementwise import EXACT
from tests import rows as tools
from tests import soundness
from tests.mutants.right import RIGHT
from tests.mutants.wrong import WRONG
from tests.proofs import arguments, prove
from tests.registry import REGISTRY

MASK = np.array([[True, True, True, False], [True, False, False, False], [False] * 4])
X = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
# Gradients that are right, but hold a product of a known 0 with a number from the padding.
NOT_PROVED = {"losses.ntxent", "losses.circle_loss"} | {
    e.name for e in REGISTRY if "attend:blocks" in e.name
}
STREAMS = [entry for entry in REGISTRY if entry.stream is not None]


# ------------------------------------------------------------------ the registry


@pytest.mark.sampled(6)
@pytest.mark.parametrize("entry", REGISTRY, ids=str)
def test_padding_is_proved(entry):
    proof = prove(entry, witness=False)
    assert proof.values == "proved", str(proof)
    assert proof.gradients == "proved" or entry.name in NOT_PROVED, str(proof)


@pytest.mark.exhaustive
@pytest.mark.parametrize("entry", REGISTRY, ids=str)
def test_padding_is_proved_wherever_it_lies(entry):
    for layout in tools.BY_CLASS[entry.mask_class]:
        proof = prove(entry, layout=layout, witness=False)
        assert proof.values == "proved", str(proof)
        assert proof.gradients == "proved" or entry.name in NOT_PROVED, str(proof)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("entry", STREAMS, ids=str)
def test_what_streams_is_causal(entry):
    proof = prove(entry, "time")
    assert proof.verdict == "proved", str(proof)


@pytest.mark.parametrize(
    "function", [jm.ops.flip, jm.ops.softmax, lambda x, m: (jnp.flip(x, 1), m)]
)
def test_what_looks_ahead_is_not_causal(function):
    every = np.ones_like(MASK)
    proof = jm.leak.prove(function, X, every, of="time")
    assert proof.verdict == "not proved", str(proof)
    with pytest.raises(jm.LeakError, match=r"test_proof\.py"):
        jm.leak.assert_causal(lambda x, m: function(x, m), X, every)


def _causal_attention(fill, added, ahead=0):
    def attention(x, mask):
        allowed = jnp.tril(jnp.ones((4, 4), bool), ahead) & mask[:, None]
        scores = x @ x.swapaxes(1, 2)
        scores = scores + jnp.where(allowed, 0, fill) if added else jnp.where(allowed, scores, fill)
        y = jax.nn.softmax(scores) @ x
        return jnp.where(mask[..., None], y, 0), mask

    return attention


@pytest.mark.parametrize("added", [False, True], ids=["where", "sum"])
def test_a_large_finite_fill_is_named(added):
    """Scores of later steps that lie below it would win, so it is not causal for all values."""
    (cause,) = jm.leak.prove(_causal_attention(-1e9, added), X, MASK, of="time").blame
    assert cause.fill == -1e9
    assert "-1e9, which could be outweighed" in cause.what
    assert "with -inf in its place nothing passes" in cause.what
    assert "`jnp.finfo(dtype).min`" in cause.mend
    assert jm.leak.prove(_causal_attention(-jnp.inf, added), X, MASK, of="time").verdict == "proved"
    lowest = _causal_attention(float(np.finfo(np.float32).min), added=False)
    assert jm.leak.prove(lowest, X, MASK, of="time").verdict == "proved"


def test_what_leaks_is_named_before_a_fill_that_may():
    attend = _causal_attention(-1e9, added=False)

    def and_a_mean(x, mask):
        return attend(x, mask)[0] + jnp.where(mask[..., None], x, 0).mean(1, keepdims=True), mask

    first, second = jm.leak.prove(and_a_mean, X, MASK, of="time").blame
    assert (first.primitive, first.fill, second.fill) == ("reduce_sum", None, -1e9)
    assert "later steps" in first.what
    assert "ops.cumsum" in first.mend


@pytest.mark.parametrize("added", [False, True], ids=["where", "sum"])
def test_a_step_ahead_is_not_laid_to_the_fill(added):
    """It is there with -inf too."""
    proof = jm.leak.prove(_causal_attention(-1e9, added, ahead=1), X, MASK, of="time")
    same = jm.leak.prove(_causal_attention(-jnp.inf, added, ahead=1), X, MASK, of="time")
    assert [cause.fill for cause in proof.blame] == [None] * len(same.blame)
    assert [cause.primitive for cause in proof.blame] == [c.primitive for c in same.blame]
    assert "outweighed" not in str(proof)


@pytest.mark.parametrize(
    ("of", "function", "what"),
    [
        ("time", lambda x, m: (jnp.where(m[..., None], jnp.flip(x, 1), 0), m), "later step"),
        ("rows", lambda x, m: (x - x.max(0), m), "an extreme over several rows"),
        ("segments", lambda x, m: (x + x.sum(1, keepdims=True), m), "several packed sequences"),
    ],
)
def test_advice_is_about_what_was_asked(of, function, what):
    mask = (
        jm.Segments(np.array([[1, 1, 2, 0]] * 3), 2) if of == "segments" else np.ones((3, 4), bool)
    )
    cause = jm.leak.prove(function, X, mask, of=of, witness=False).blame[0]
    assert what in cause.what
    assert "padding" not in cause.what + cause.mend


# ------------------------------------------------------------------ plain functions


def masked_mean(x, mask):
    total = jnp.where(mask[..., None], x, 0).sum(1)
    return total / jnp.maximum(mask.sum(1), 1)[:, None], mask.any(1)


def attention(x, mask):
    x = jnp.where(mask[..., None], x, 0)
    scores = jnp.where(mask[:, None], jnp.einsum("bqf,bkf->bqk", x, x), -jnp.inf)
    weights = jax.nn.softmax(scores, where=jnp.broadcast_to(mask[:, None], scores.shape))
    return jnp.where(mask[..., None], weights @ x, 0), mask


def logarithm(x, mask):
    safe = jnp.where(mask[..., None], x**2 + 1, 1)
    return jnp.log(safe), mask


def masked_step(h, inputs):
    x, real = inputs[0], inputs[1][:, None]
    return jnp.where(real, jnp.tanh(h + jnp.where(real, x, 0)), h), None


PROVED = {
    "masked mean": masked_mean,
    "mean(where=)": lambda x, m: (x.mean(1, where=m[..., None]), m.any(1)),
    "attention": attention,
    "logarithm": logarithm,
    "loss without a mask": lambda x, m: jnp.where(m[..., None], x**2, 0).sum() / m.sum(),
    "training step": lambda x, m: jax.grad(
        lambda w: ((jnp.where(m[..., None], x, 0) @ w) ** 2).sum()
    )(jnp.eye(2)),
    "scan": lambda x, m: jax.lax.scan(masked_step, jnp.zeros((3, 2)), (x.swapaxes(0, 1), m.T))[0],
}
REFUSED = {
    "product with the mask": lambda x, m: ((x * m[..., None]).sum(1), m.any(1)),
    "mean over padded time": lambda x, m: (x.mean(1), m.any(1)),
    "large negative bias": lambda x, m: (
        jax.nn.softmax(x[..., 0] + jnp.where(m, 0, -1e9)),
        m,
    ),
    "batch statistics": lambda x, m: ((x - x.mean((0, 1))) / x.std((0, 1)), m),
    "window": lambda x, m: (x + jnp.roll(x, 1, 1), m),
    "mask made of values": lambda x, m: (x, m & (x.sum((1, 2)) > 0)[:, None]),
    "loss": lambda x, m: (x**2).mean(),
}


@pytest.mark.parametrize("name", PROVED)
def test_plain_functions_are_proved(name):
    proof = jm.leak.prove(PROVED[name], X, MASK)
    assert proof.verdict == "proved", str(proof)


@pytest.mark.parametrize("name", REFUSED)
def test_leaks_are_convicted_and_located(name):
    proof = jm.leak.prove(REFUSED[name], X, MASK)
    assert proof.verdict == "not proved", str(proof)
    assert proof.blame
    assert any(c.place and c.place.file == __file__ for c in proof.blame), str(proof)


def three_mistakes(x, mask):
    weights = jax.nn.softmax(x @ x.swapaxes(1, 2))
    x = jnp.where(mask[..., None], x, 0) + weights @ x
    x = (x - x.mean((0, 1))) / (1 + x.var((0, 1)))
    return x.mean(1), mask.any(1)


def test_each_mistake_has_its_line():
    proof = jm.leak.prove(three_mistakes, X, MASK)
    first = three_mistakes.__code__.co_firstlineno
    of_values = [c for c in proof.blame if "value of output[0]" in c.reaches]
    lines = {cause.place.line - first for cause in of_values}
    assert lines >= {1, 3, 4}, str(proof)
    assert all(cause.chain for cause in of_values)


def test_the_check_leads_to_the_lines_too():
    report = jm.leak.check(three_mistakes, X, MASK)
    first = three_mistakes.__code__.co_firstlineno
    text = str(report)
    assert not report.ok
    for line in (1, 3, 4):
        assert text.count(f"{__file__}:{first + line} ") == 1, text


def test_undecided_is_no_conviction():
    proof = jm.leak.prove(lambda x, m: ((x - x).sum(1) * 0, m.any(1)), X, MASK, assume="finite")
    assert proof.verdict == "proved"
    proof = jm.leak.prove(lambda x, m: (jnp.sign(jnp.abs(x) + 1).sum(1), m.any(1)), X, MASK,
                          assume="finite")  # fmt: skip
    assert proof.verdict == "undecided"


def test_always_nan_is_told_from_dependence():
    proof = jm.leak.prove(lambda x, m: (x.sum(1) + jnp.nan, m.any(1)), X, MASK)
    assert proof.values == "proved"
    assert "always nan" in str(proof)


def test_an_unknown_primitive_is_named():
    def twice(x):
        return jax.pure_callback(
            lambda x: np.asarray(x) * 2, jax.ShapeDtypeStruct(x.shape, x.dtype), x
        )

    proof = jm.leak.prove(lambda x, m: (twice(x), m), X, MASK)
    assert proof.unknown == ("pure_callback",)
    assert "pure_callback" in str(proof)
    filled = jm.leak.prove(lambda x, m: (twice(jnp.where(m[..., None], x, 0)), m), X, MASK)
    assert filled.values == "proved"
    assert filled.trusted == ("pure_callback",)


# ------------------------------------------------------------------ other kinds of subjects


def test_modules_with_state_and_noise():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.norm = jm.nn.BatchNorm(2, rngs=rngs)
            self.drop = jm.nn.Dropout(0.5, rngs=rngs)
            self.out = nnx.Linear(2, 2, rngs=rngs)

        def __call__(self, x, mask):
            x, mask = self.drop(*self.norm(x, mask))
            return jnp.where(mask[..., None], self.out(x), 0), mask

    proof = jm.leak.prove(Model(nnx.Rngs(0)), X, MASK)
    assert proof.verdict == "proved", str(proof)
    assert any(claim.what == "statistics" for claim in proof.claims)


def test_a_linen_module():
    dense = flax.linen.Dense(2)
    params = dense.init(jax.random.key(0), X)
    proof = jm.leak.prove(lambda p, x, m: (dense.apply(p, x), m), X, MASK, params=params)
    assert proof.values == "proved"
    assert proof.gradients == "not proved"  # of the weights: x^T @ cotangent, over padding too


def test_a_pytree_with_masks_of_its_own():
    other = np.arange(6) < np.array([[6], [2], [3]])
    y = np.ones((3, 6), np.float32)

    def both(x, masks):
        sums = [
            jnp.where(m, v, 0).sum(1)
            for v, m in ((x["a"][..., 0], masks["a"]), (x["b"], masks["b"]))
        ]
        return sums[0] + sums[1] + x["c"]

    x = {"a": X, "b": y, "c": np.ones(3, np.float32)}
    assert jm.leak.prove(both, x, {"a": MASK, "b": other, "c": None}).verdict == "proved"
    proof = jm.leak.prove(
        lambda x, m: both(x, {**m, "b": m["b"] | True}), x, {"a": MASK, "b": other, "c": None}
    )
    assert proof.verdict == "not proved"
    with pytest.raises(ValueError, match="structure"):
        jm.leak.prove(both, x, {"a": MASK})


def test_segments_are_kept_apart():
    ids = np.array([[1, 1, 2, 0], [1, 2, 2, 3], [1, 1, 1, 1]])
    packed = jm.Segments(ids, 3)
    assert jm.leak.prove(jm.ops.softmax, X, packed, of="segments").verdict == "proved"
    proof = jm.leak.prove(
        lambda x, s: (x + jnp.where(s.ids[..., None] > 0, x, 0).sum(1, keepdims=True), s),
        X, packed, of="segments",
    )  # fmt: skip
    assert proof.verdict == "not proved"


def test_rows_are_kept_apart():
    jm.leak.assert_rows_independent(jm.norm.layer, X, MASK)
    with pytest.raises(jm.LeakError, match="row"):
        jm.leak.assert_rows_independent(lambda x, m: (x - x.mean(0), m), X, MASK)


def test_a_loss_of_optax():
    labels = np.array([[0, 1, 1, 0]] * 3)

    def loss(x, mask):
        safe = jnp.where(mask[..., None], x, 0)
        each = optax.softmax_cross_entropy_with_integer_labels(safe, labels)
        return jnp.where(mask, each, 0).sum() / mask.sum()

    assert jm.leak.prove(loss, X, MASK).verdict == "proved"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"of": "steps"}, "of"),
        ({"assume": "nothing"}, "assume"),
        ({"mask": None}, "mask"),
        ({"mask": np.zeros_like(MASK)}, "nothing as real"),
        ({"mask": np.ones_like(MASK)}, "no padding"),
        ({"of": "segments"}, "Segments"),
        ({"mask": MASK[:, :3]}, "mask"),
        ({"x": []}, "at least one array"),
        ({"fn": lambda x, m: x.sum(), "of": "rows"}, "nothing can be asked"),
    ],
)
def test_refuses(change, message):
    given = {"fn": masked_mean, "x": X, "mask": MASK} | change
    with pytest.raises((ValueError, TypeError), match=message):
        jm.leak.prove(given.pop("fn"), given.pop("x"), given.pop("mask"), **given)


# ------------------------------------------------------------------ soundness


@pytest.fixture
def _compared(monkeypatch):
    """Every rule that a proof applies is compared with its primitive."""
    monkeypatch.setattr(soundness.Checked, "seen", set())
    monkeypatch.setattr(
        verdict.Run, "machine", lambda run: soundness.Checked(finite=run.finite, causes=run.causes)
    )


SMALL = [
    e for e in REGISTRY if e.name in ("pool.max", "ops.shift", "conv.max_pool1d", "recurrent.gru")
]


@pytest.mark.parametrize("entry", SMALL, ids=str)
@pytest.mark.usefixtures("_compared")
def test_rules_agree_with_their_primitives(entry):
    prove(entry)


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["strict", "finite"])
@pytest.mark.parametrize("entry", REGISTRY, ids=str)
@pytest.mark.usefixtures("_compared")
def test_every_rule_agrees_with_its_primitive(entry, mode):
    for layout in tools.BY_CLASS[entry.mask_class]:
        prove(entry, layout=layout, assume=mode)


def test_known_parts_of_complex_numbers_are_exact():
    parts = np.array([0.0, -0.0, np.inf, 1], np.float32)
    for a in parts:
        got = EXACT["complex"](a, parts)
        assert got.dtype == np.complex64
        np.testing.assert_array_equal(got.real, np.full(4, a))
        np.testing.assert_array_equal(got.imag, parts)
        np.testing.assert_array_equal(np.signbit(got.imag), np.signbit(parts))


def forgets(name, operand):
    """The rule of a primitive, which forgets what taints an operand."""
    rule = RULES[name]

    def forgetful(step):
        value = step.ins[operand]
        step.ins = list(step.ins)
        step.ins[operand] = Value(value.shape, value.value, value.known)
        return rule(step)

    return forgetful


W = np.eye(2, dtype=np.float32)
FORGETFUL = {
    ("add", 1): lambda x, m: 1 + x + x,
    ("mul", 0): lambda x, m: x * 2.5,
    ("select_n", 0): lambda x, m: jnp.where(x > 0, 1.5, 2.5) * x[0, 0, 0],
    ("select_n", 1): lambda x, m: jnp.where(m[..., None], 0, x),
    ("dot_general", 0): lambda x, m: x @ W,
    ("dot_general", 1): lambda x, m: W @ x.swapaxes(1, 2),
    ("reduce_sum", 0): lambda x, m: x.sum(1),
    ("reduce_max", 0): lambda x, m: x.max(1),
    ("cumsum", 0): lambda x, m: jnp.cumsum(x, 1),
    ("sort", 0): lambda x, m: jnp.sort(x, 1),
    ("gather", 0): lambda x, m: x[:, jnp.array([2, 0, 3])],
    ("gather", 1): lambda x, m: jnp.arange(9.0)[(x > 0).astype(int)] * 1.5,
    ("scatter-add", 2): lambda x, m: jnp.zeros((3, 9, 2)).at[:, jnp.array([1, 5, 5, 0])].add(x),
    ("scatter-add", 1): lambda x, m: jnp.zeros(5).at[(x[0, :, 0] > 0).astype(int)].add(1.5),
    ("concatenate", 1): lambda x, m: jnp.concatenate([x, 2 * x], 1),
    ("pad", 0): lambda x, m: jax.lax.pad(x, 0.0, [(0, 0, 0), (1, -1, 1), (0, 0, 0)]),
    ("dynamic_slice", 0): lambda x, m: jax.lax.dynamic_slice(x, (0, m.sum() // 5, 0), (3, 2, 2)),
    ("dynamic_update_slice", 1): lambda x, m: jax.lax.dynamic_update_slice(
        jnp.zeros((3, 9, 2)), x, (0, m.sum() // 2, 0)
    ),
    ("reduce_window_max", 0): lambda x, m: jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 2, 1), (1, 1, 1), "SAME"
    ),
    ("conv_general_dilated", 0): lambda x, m: jax.lax.conv_general_dilated(
        x, jnp.ones((3, 2, 2)), (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    ),
    ("argmax", 0): lambda x, m: x.argmax(1),
    ("rem", 0): lambda x, m: (x > 0).astype(int) % 7,
    ("top_k", 0): lambda x, m: jax.lax.top_k(x.swapaxes(1, 2), 2)[0],
    ("fft", 0): lambda x, m: jnp.fft.rfft(x, axis=1).real,
    ("clamp", 1): lambda x, m: jax.lax.clamp(-1.0, x, 1.0),
    ("rev", 0): lambda x, m: x[:, ::-1],
}  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "operand"), FORGETFUL)
@pytest.mark.usefixtures("_compared")
def test_a_rule_that_forgets_is_caught(name, operand, monkeypatch):
    program = FORGETFUL[name, operand]
    jm.leak.prove(lambda x, m: (program(x, m), m), X, MASK, assume="strict")
    soundness.Checked.seen.clear()
    monkeypatch.setitem(RULES, name, forgets(name, operand))
    with pytest.raises(soundness.UnsoundError):
        jm.leak.prove(lambda x, m: (program(x, m), m), X, MASK)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("mutant", [*WRONG, *RIGHT], ids=str)
def test_nothing_wrong_is_proved_of_mutants(mutant):
    masks = tools.masks_for(mutant.entry, "right", 6, [mutant.lengths])
    function, x, by_array = arguments(mutant.entry, masks=masks)
    params = mutant.entry.params
    proof = jm.leak.prove(function, x, by_array, params=params)

    def pairs(params, x, masks):
        return function(params, x, masks)

    soundness.assert_holds(proof, pairs, x, by_array, params)
    if mutant in RIGHT:
        assert proof.values == "proved", str(proof)


def where(mask, x, other=0.0):
    return jnp.where(mask[..., None], x, other)


STEPS = {
    "fill": lambda x, m: where(m, x),
    "fill with ones": lambda x, m: where(m, x, 1.0),
    "times mask": lambda x, m: x * m[..., None],
    "dense": lambda x, m: jnp.tanh(x @ jnp.array([[0.5, -1.0], [2.0, 0.3]])),
    "softmax": lambda x, m: jax.nn.softmax(x, 1),
    "masked softmax": lambda x, m: jax.nn.softmax(where(m, x, -jnp.inf), 1, where=m[..., None]),
    "cumsum": lambda x, m: jnp.cumsum(x, 1),
    "reverse cumsum": lambda x, m: jax.lax.cumsum(x, 1, reverse=True),
    "flip": lambda x, m: jnp.flip(x, 1),
    "shift": lambda x, m: jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1],
    "shift back": lambda x, m: jnp.pad(x, ((0, 0), (0, 1), (0, 0)))[:, 1:],
    "centre": lambda x, m: x - x.mean(1, keepdims=True),
    "centre the real": lambda x, m: x - x.mean(1, keepdims=True, where=m[..., None]),
    "sort": lambda x, m: jnp.sort(x, 1),
    "sort with infinity": lambda x, m: jnp.sort(where(m, x, jnp.inf), 1),
    "compact": lambda x, m: jnp.take_along_axis(x, jnp.argsort(~m, 1, stable=True)[..., None], 1),
    "by rank": lambda x, m: jnp.take_along_axis(x, jnp.argsort(x[..., :1], 1), 1),
    "last real": lambda x, m: x + jnp.take_along_axis(
        x, jnp.maximum(m.sum(1) - 1, 0)[:, None, None], 1),
    "slots": lambda x, m: jnp.zeros_like(x).at[:, jnp.array([0, 0, 1, 3])].add(x),
    "scatter real": lambda x, m: jnp.zeros_like(x).at[:, jnp.array([3, 1, 0, 2])].set(where(m, x)),
    "window": lambda x, m: jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 2, 1), (1, 1, 1), "SAME"),
    "recurrence": lambda x, m: jax.lax.scan(
        lambda h, v: (jnp.tanh(h + v),) * 2, jnp.zeros((3, 2)), x.swapaxes(0, 1))[1].swapaxes(0, 1),
    "masked recurrence": lambda x, m: jax.lax.scan(
        lambda h, v: (jnp.where(v[1][:, None], jnp.tanh(h + v[0]), h),) * 2,
        jnp.zeros((3, 2)), (x.swapaxes(0, 1), m.T))[1].swapaxes(0, 1),
    "branch": lambda x, m: jax.lax.cond(m[0, 0], jnp.sin, lambda x: x.sum() + x, x),
    "branch on data": lambda x, m: jax.lax.cond(x[0, 0, 0] > 0, jnp.sin, jnp.cos, x),
    "loop": lambda x, m: jax.lax.fori_loop(
        0, m.sum(), lambda k, y: y.at[:, k % 2].multiply(0.5), x),
    "attention": lambda x, m: jax.nn.softmax(x @ x.swapaxes(1, 2)) @ x,
    "masked attention": lambda x, m: jax.nn.softmax(
        jnp.where(m[:, None], x @ x.swapaxes(1, 2), -1e30)) @ where(m, x),
    "log": lambda x, m: jnp.log(where(m, x * x + 1, 1.0)),
    "round": lambda x, m: jnp.round(jnp.clip(x, -3, 3)).astype(jnp.int32).astype(x.dtype) + 0.1 * x,
    "one hot": lambda x, m: x * jax.nn.one_hot(x.argmax(-1), 2),
    "gather": lambda x, m: jnp.array([[0.0, 1], [2, 3], [4, 5]])[
        jnp.clip(jnp.nan_to_num(x[..., 0]), 0, 2).astype(int)] + x,
    "where equal": lambda x, m: jnp.where(x == x.max(1, keepdims=True), x, 0.5 * x),
    "batch": lambda x, m: x - x.mean(0),
    "cummax": lambda x, m: jax.lax.cummax(x, 1),
    "product": lambda x, m: x * jnp.prod(where(m, 0.1 * x, 1.0), 1, keepdims=True),
}  # fmt: skip
ENDS = {
    "steps": lambda x, m: (x, m),
    "filled": lambda x, m: (where(m, x), m),
    "sum": lambda x, m: (where(m, x).sum(1), m.any(1)),
    "first": lambda x, m: (x[:, 0], m[:, 0]),
}


def compare_random(number, seed):
    """Whatever is proved of a random program holds on three contents of the padding."""

    @settings(
        max_examples=number,
        derandomize=not seed,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4),
           st.sampled_from(sorted(ENDS)), st.integers(0, 5))  # fmt: skip
    def holds(names, end, number):
        draw = np.random.default_rng(number)
        mask = draw.random((3, 4)) < 0.6
        mask[0, 0], mask[1, 2] = True, False

        def program(x, masks):
            y = x[0]
            for name in names:
                y = STEPS[name](y, masks[0])
            return [ENDS[end](y, masks[0])]

        x = [draw.normal(size=(3, 4, 2)).astype(np.float32)]
        proof = jm.leak.prove(program, x, [mask], witness=False)
        soundness.assert_holds(proof, program, x, [jnp.asarray(mask)])

    holds()


def test_what_is_proved_of_random_programs_holds(request):
    compare_random(6, request.config.getoption("--fuzz"))


@pytest.mark.exhaustive
def test_what_is_proved_of_many_random_programs_holds(request):
    compare_random(request.config.getoption("--fuzz") or 2000, request.config.getoption("--fuzz"))
