"""Kernels of accelerators, interpreted or lowered: no such device is needed, and none was at hand.

Splash attention runs here in Pallas's interpreter. In the place of cuDNN stands JAX's own
implementation of the same function, which is given the same lengths and masks.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from jaxmask.attention import _choice, _kernels
from tests.test_attention import LENGTHS, MASKS, close, draw, heads, poisoned

SEGMENTS = jm.Segments(jnp.array([[1, 1, 2, 2, 2], [1, 0, 1, 2, 2], [0] * 5]), 2)
ALL = {**MASKS, "packed": SEGMENTS, "none": None}
OPTIONS = {
    "plain": {},
    "causal": {"causal": True},
    "window": {"causal": True, "window": 2},
    "both sides": {"window": (2, 3)},
    "cap": {"softcap": 1.5, "causal": True},
}


def values(x, mask, method, **options):
    """The results and the gradients of three arrays, of which two have half of the heads."""

    def attended(q, k, v):
        return jm.attention.attend(q, mask, k, v, mask, method=method, **options)[0]

    @jax.jit
    def run(q, k, v):
        y, pull = jax.vjp(attended, q, k, v)
        sent = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        return y, pull(sent.astype(y.dtype))

    return run(*x)


def arrays(mask, dtype=np.float32, count=4, features=6):
    shapes = (3, 5, count, features), (3, 5, 2, features), (3, 5, 2, features)
    xs = [draw(shape, seed) for seed, shape in enumerate(shapes)]
    xs = [poisoned(x, np.asarray(jm.masks.as_bool(mask))) if mask is not None else x for x in xs]
    return [jnp.asarray(x, dtype) for x in xs]


# -------------------------------------------------------------------------------- splash


@pytest.fixture
def interpreted(monkeypatch):
    """The kernel, wherever the tests run."""
    splash = functools.partial(_kernels.splash, interpret=True)
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda given, *, tpu, default: splash(*tpu.args, given)
    )


@pytest.mark.sampled(5)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ALL)
def test_splash_attention_is_the_reference(interpreted, name, options):
    x, mask = arrays(ALL[name]), ALL[name]
    ours, theirs = (
        values(x, mask, method, **OPTIONS[options]) for method in ("splash", "reference")
    )
    jax.tree.map(functools.partial(close, tolerance=1e-4), ours, theirs)


def test_splash_attention_to_a_memory(interpreted):
    """More queries than keys, rows without keys, queries that see nothing within a window."""
    q, k = heads(5), heads(3, 2, 1)
    kv_mask = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0]], bool)
    for options in ({}, {"causal": True, "window": 2}):
        ours, theirs = (
            jm.attention.attend(q, MASKS["holes"], k, k, kv_mask, method=method, **options)[0]
            for method in ("splash", "reference")
        )
        close(ours, theirs, 1e-4)
    assert LENGTHS[2] == 0


def test_splash_attention_lowers_for_a_tpu_and_leaves_other_devices_to_the_reference():
    def loss(q, k, v, mask):
        y, _ = jm.attention.attend(q, mask, k, v, mask, causal=True, method="splash")
        return jnp.sum(y**2)

    mask = MASKS["right"]
    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*arrays(mask, features=64), mask)
    text = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("tpu", "cpu", "cuda")}
    assert "tpu_custom_call" in text["tpu"]
    assert "custom_call" not in text["cpu"]
    assert "custom_call" not in text["cuda"]
    x = arrays(mask)
    jax.tree.map(close, values(x, mask, "splash"), values(x, mask, "reference"))


# --------------------------------------------------------------------------------- cuDNN


@pytest.fixture
def with_cudnn(monkeypatch):
    monkeypatch.setattr(_choice, "has_cudnn", lambda: True)
    monkeypatch.setattr(
        "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91100
    )


@pytest.mark.sampled(5)
@pytest.mark.parametrize("options", sorted(set(OPTIONS) - {"cap"}))
@pytest.mark.parametrize("name", ALL)
def test_what_cudnn_is_given_is_the_reference(with_cudnn, monkeypatch, name, options):
    plain, asked = jax.nn.dot_product_attention, []

    def instead(*args, implementation=None, **options):
        asked.append((implementation, options.get("query_seq_lengths") is not None))
        return plain(*args, **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", instead)
    x, mask = (a[:, :4] for a in arrays(ALL[name], jnp.bfloat16, features=8)), ALL[name]
    mask = jax.tree.map(lambda m: m[:, :4], mask)
    x = list(x)
    ours = values(x, mask, "cudnn", **OPTIONS[options])
    lengths = name not in ("packed", "none") and options != "both sides"
    assert asked == [("cudnn", lengths)]
    theirs = values(x, mask, "reference", **OPTIONS[options])
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        close(np.asarray(a, np.float32), np.asarray(b, np.float32), 0.06)


@pytest.mark.parametrize("options", ["plain", "window", "both sides"])
def test_cudnn_lowers_for_cuda(with_cudnn, options):
    def loss(q, k, v, mask):
        y, _ = jm.attention.attend(q, mask, k, v, mask, method="cudnn", **OPTIONS[options])
        return jnp.sum(y.astype(jnp.float32) ** 2)

    mask = MASKS["right"][:, :4]
    x = [a[:, :4] for a in arrays(MASKS["right"], jnp.bfloat16, features=8)]
    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*x, mask)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmha" in text
    assert ("ScaleBias" in text) == (options == "both sides")


# ------------------------------------------------------------------------------ the rule


def test_what_a_kernel_has_no_place_for_takes_the_reference(monkeypatch):
    explain, shape = jm.attention.explain, (2, 128, 4, 64)
    assert "CUDA" in explain(shape, dtype="bfloat16", method="cudnn").reason
    monkeypatch.setattr(_choice, "has_cudnn", lambda: True)
    assert explain(shape, dtype="bfloat16", method="cudnn").method == "cudnn"
    assert explain(shape, dtype="bfloat16", packed=True, method="cudnn").method == "cudnn"
    odd, half = (2, 127, 4, 64), {"dtype": "bfloat16", "method": "cudnn"}
    for found, reason in (
        (explain(shape, method="cudnn"), "bfloat16"),
        (explain((2, 128, 4, 20), **half), "multiple of 8"),
        (explain(shape, softcap=1.0, **half), "cap"),
        (explain(shape, dropout_rate=0.1, **half), "noise"),
        (explain(odd, bias=True, **half), "even"),
        (explain(shape, return_weights=True, **half), "weights"),
        (explain(shape, bias=True, method="splash"), "no bias"),
        (explain(shape, predicate=True, method="splash"), "no bias"),
        (explain(shape, dropout_rate=0.1, method="splash"), "noise"),
    ):
        assert found.method == "reference", reason
        assert reason in found.reason
    assert explain(odd, causal=True, window=9, **half).method == "cudnn"
    assert explain(shape, window=9, packed=True, softcap=1.0, method="splash").method == "splash"
    other = jm.Segments(SEGMENTS.ids[:, ::-1], 2)
    x = heads(5)
    ours = jm.attention.attend(x, SEGMENTS, x, x, other, causal=True, method="splash")[0]
    close(ours, jm.attention.attend(x, SEGMENTS, x, x, other, causal=True)[0])
