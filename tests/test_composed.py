"""Gradients in a whole program: something computed before each function, something after it.

What XLA fuses decides which rounding of a value a comparison sees, so a rule that compares a value
with one computed from it can lose its gradient here and nowhere else.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import core

from tests import optimised
from tests import rows as tools
from tests.law import law
from tests.x64 import enable_x64

SEEDS = 6
WIDTH = 5  # features of what comes in


def norm(params, h):
    """Like a layer norm, with the variance as a difference of moments."""
    scale, bias = params["scale"], params["bias"]
    mean = h.mean(-1, keepdims=True)
    variance = jnp.maximum((h * h).mean(-1, keepdims=True) - mean * mean, 0)
    return (h - mean) * (jax.lax.rsqrt(variance + 1e-6) * scale) + bias


def dense(params, h):
    return jax.nn.gelu(h @ params["kernel"] + params["bias"]) * params["scale"] + 0.2 * h


def attention(params, h):
    return jax.nn.softmax(h * params["scale"]) @ params["kernel"] + params["bias"]


PRODUCERS = {"norm": norm, "dense": dense, "softmax": attention}


def producer_params(seed):
    draw = np.random.default_rng([seed, 3])
    return {
        "kernel": draw.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH),
        "scale": 1 + 0.3 * draw.normal(size=WIDTH),
        "bias": 0.3 * draw.normal(size=WIDTH),
    }


def as_argument(h, spec):
    """`h [batch, time, WIDTH]` as one argument of a function: of its features and of its kind."""
    size = int(np.prod(spec.features, dtype=int))
    h = jnp.tile(h, -(-size // WIDTH))[..., :size].reshape(*h.shape[:-1], *spec.features)
    if spec.kind == "positive":
        return 0.5 + jax.nn.sigmoid(h)
    if spec.kind == "probability":
        return jax.nn.softmax(h) if spec.features else jax.nn.sigmoid(h)
    return h


def is_made(spec):
    return spec.kind in ("float", "positive", "probability")


def has_gradients(entry):
    return any(is_made(spec) for spec in entry.inputs)


def produce(producer, entry, params, hs):
    """The arguments that are computed: one from each `h`."""
    specs = [spec for spec in entry.inputs if is_made(spec)]
    return [as_argument(producer(params, h), spec) for h, spec in zip(hs, specs, strict=True)]


def consume(entry, given, masks, params, made):
    """A nonlinear function of all results: one number."""
    made = iter(made)
    xs = [next(made) if is_made(spec) else x for x, spec in zip(given, entry.inputs, strict=True)]
    results = [y for y, _ in entry.call(params, xs, masks, np.arange(4))]
    terms = (
        jnp.vdot(jnp.cos(jnp.arange(1, y.size + 1, dtype=y.dtype)), jnp.sin(y).ravel())
        for y in results
        if jnp.issubdtype(y.dtype, jnp.floating)
    )
    return sum(terms, start=jnp.zeros(()))


def problem(entry, dtype):
    """`(given, masks)`, the parameters of the entry, and those and inputs of producers by seed."""
    masks = tools.masks_for(entry, tools.BY_CLASS[entry.mask_class][-1])
    given = tools.arguments(entry, masks, np.arange(4))
    shape = (*masks[0].shape, WIDTH)
    count = sum(map(is_made, entry.inputs))
    seeds = [
        (producer_params(seed), list(np.random.default_rng(seed).normal(size=(count, *shape))))
        for seed in range(SEEDS)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves), dtype), *seeds)
    params = jax.tree.map(
        lambda x: jnp.asarray(x, dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        entry.params,
    )
    return (given, masks), params, stacked


def in_one_program(entry, names):
    """Optimised gradients by producer and seed, in its parameters and in those of the entry."""
    arguments, params, stacked = problem(entry, np.float32)

    def total(params, one, name):
        made = produce(PRODUCERS[name], entry, *one)
        return consume(entry, *arguments, params, made)

    def run(params, stacked):
        def of_a_seed(one):
            return [jax.grad(total, (0, 1))(params, one, name) for name in names]

        return jax.lax.map(of_a_seed, stacked)

    return [(by_p, by_one[0]) for by_p, by_one in optimised.compiler()(run)(params, stacked)]


def draws_noise(entry):
    return any(eqn.primitive.name == "random_bits" for eqn in gradient_of(entry))


def in_parts(entry, names):
    """The same in float64, the producers apart from the function, so that none is computed twice.

    Noise is drawn in the dtype of the data, so that of float64 would be other noise.
    """
    wide = not draws_noise(entry)
    with enable_x64(wide):
        arguments, params, stacked = problem(entry, np.float64 if wide else np.float32)
        pulls, made = [], []
        for name in names:
            run = functools.partial(produce, PRODUCERS[name], entry)
            xs, pull = jax.vjp(jax.vmap(run), *stacked)
            made.append(xs)
            pulls.append(pull)
        slope = jax.grad(functools.partial(consume, entry, *arguments), (0, 1))
        every = jax.tree.map(lambda *parts: jnp.concatenate(parts), *made)
        by_params, by_made = jax.jit(jax.vmap(slope, (None, 0)))(params, every)
        results = []
        for index, pull in enumerate(pulls):
            mine = slice(index * SEEDS, (index + 1) * SEEDS)
            by_producer, _ = pull([x[mine] for x in by_made])
            results.append((jax.tree.map(lambda x, mine=mine: x[mine], by_params), by_producer))
        return jax.tree.map(np.asarray, results)


# What a rounding can decide, where an operand is a float.
CHOICES = {
    *("eq", "ne", "lt", "le", "gt", "ge", "max", "min", "abs", "sign", "floor", "ceil", "round"),
    *("clamp", "sort", "top_k", "argmax", "argmin", "reduce_max", "reduce_min", "cummax", "cummin"),
    *("is_finite", "reduce_window", "reduce_window_max", "reduce_window_min", "while"),
}


def chooses_by_floats(entry):
    """Whether the gradient of an entry compares numbers anywhere, so that rounding may matter."""
    return any(
        eqn.primitive.name in CHOICES and any(map(is_float, eqn.invars))
        for eqn in gradient_of(entry)
    )


@functools.lru_cache(maxsize=1)
def gradient_of(entry):
    """Its equations and those inside of them."""
    arguments, params, stacked = problem(entry, np.float32)
    one = jax.tree.map(lambda x: x[0], stacked)
    made = jax.eval_shape(functools.partial(produce, norm, entry), *one)
    gradient = jax.grad(functools.partial(consume, entry, *arguments), (0, 1))
    return list(equations(jax.make_jaxpr(gradient)(params, made).jaxpr))


def is_float(operand):
    return jnp.issubdtype(operand.aval.dtype, jnp.floating)


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in core.jaxprs_in_params(eqn.params):
            yield from equations(inner)


@law(
    over=has_gradients,
    where=chooses_by_floats,
    of_gradients=True,
    by_fusion=True,
    of_every_call=False,
)
def test_composed(entry):
    """In one optimised program, gradients are those of float64, computed in parts."""
    assert_composed(entry, ["norm"])


@pytest.mark.exhaustive
@law(over=has_gradients, of_gradients=True)
def test_composed_with_others(entry):
    assert_composed(entry, ["dense", "softmax"])


def assert_composed(entry, names):
    ours, theirs = in_one_program(entry, names), in_parts(entry, names)
    for name, mine, right in zip(names, ours, theirs, strict=True):
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(right), strict=True):
            for seed in range(SEEDS):
                scale = np.abs(b[seed]).max()
                apart = np.abs(np.asarray(a[seed], np.float64) - b[seed]).max()
                assert apart <= 1e-3 * scale + 1e-4, f"{name}, seed {seed}: {apart} of {scale}"
