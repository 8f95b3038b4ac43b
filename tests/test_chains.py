"""Random chains of public functions and modules against each row alone.

In float64, so that a norm behind a norm does not blow rounding up to the size of a fault.
A chain that fails is the same again under its seed: `--fuzz 1 --fuzz-seed SEED`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from tests import optimised
from tests import rows as tools
from tests.links import EVERYWHERE, LINKS
from tests.registry import Entry
from tests.x64 import enable_x64

FEATURES, TIME = 3, 6


def pytest_generate_tests(metafunc):
    option = metafunc.config.getoption
    if "seed" in metafunc.fixturenames:
        number = option("--fuzz") or (4000 if option("--all") else 6)
        first = option("--fuzz-seed")
        metafunc.parametrize("seed", range(first, first + number))


def draw_chain(draw, layout):
    """The names of two or three links that fit together, and the entry that they make."""
    rngs, features, names, calls, params = nnx.Rngs(int(draw.integers(2**31))), FEATURES, [], [], []
    pooled = False
    for position in range(int(draw.integers(2, 4))):
        fitting = [
            name
            for name, link in LINKS.items()
            if layout in link.layouts
            and not (pooled and link.of_steps)
            and not (position == 0 and (link.pools or link.flat))  # nothing would be left to chain
        ]
        names.append(str(draw.choice(fitting)))
        link = LINKS[names[-1]]
        call, weights, features = link.make(features, rngs)
        weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights)
        calls.append(call)
        params.append(weights)
        pooled |= link.pools
        if link.flat:
            break

    def run(params, xs, masks, rows):
        pair = xs[0], masks[0]
        for call, weights in zip(calls, params, strict=True):
            pair = call(weights, *pair)
        return [pair]

    return names, Entry(", ".join(names), run, params=params)


def draw_batch(draw, layout):
    """A mask, and the ids and lengths of what it holds; a packed row holds two sequences."""
    short = int(draw.integers(1, TIME))
    if layout == "packed":
        ids = np.zeros((2, 2 * TIME), np.int32)
        lengths = {0: short, 1: TIME, 2: short, 3: 1}
        for b, (first, second) in enumerate(((0, 1), (2, 3))):
            start = int(draw.integers(0, 2))
            middle = start + lengths[first]
            ids[b, start:middle], ids[b, middle : middle + lengths[second]] = 1, 2
        return jm.Segments(jnp.asarray(ids[:, : TIME + short + 1]), 2), lengths
    lengths = dict(enumerate(int(n) for n in draw.permutation([short, TIME, short, 0])))
    mask = np.arange(TIME) < np.array(list(lengths.values()))[:, None]
    if layout == "left":
        mask = mask[:, ::-1].copy()
    if layout == "holes":
        mask = np.stack([draw.permutation(row) for row in mask])
    return mask, lengths


def contents(entry, mask, lengths):
    """The batch with nan in its padding."""
    spec = entry.inputs[0]
    ids = np.asarray(mask.ids) if isinstance(mask, jm.Segments) else mask.astype(np.int32)
    x = np.full((*ids.shape, *spec.features), np.nan, np.float64)
    rows = np.arange(len(lengths)).reshape(len(ids), -1)
    for (b, s), row in np.ndenumerate(rows):
        x[b, ids[b] == s + 1] = tools.content(spec, 0, row, lengths[row])
    return x, rows if isinstance(mask, jm.Segments) else rows[:, 0]


def gradients_of(entry, jit):
    return jit(lambda *arguments: tools.value_and_gradients(entry, *arguments))


def test_chain(seed):
    """Values, and gradients in inputs and parameters, are those of each row alone."""
    draw = np.random.default_rng(seed)
    layout = str(draw.choice(EVERYWHERE))
    with enable_x64(True):
        names, entry = draw_chain(draw, layout)
        mask, lengths = draw_batch(draw, layout)
        try:
            assert_rows_alone(entry, mask, lengths)
        except Exception as error:
            error.add_note(f"seed {seed}, {layout}, lengths {lengths}: {', '.join(names)}")
            raise


def assert_rows_alone(entry, mask, lengths):
    x, rows = contents(entry, mask, lengths)
    batch = gradients_of(entry, optimised.jit)(entry.params, [x], [mask], rows)
    ours = tools.results_by_row(entry, batch, [mask])
    _, (_, (by_x,)) = batch
    assert not np.asarray(by_x)[np.isnan(x)].any(), "gradient at padding"
    alone = gradients_of(entry, jax.jit)
    total = jax.tree.map(np.zeros_like, entry.params)
    for row, length in lengths.items():
        if not length:
            assert not ours[0][row].size
            continue
        one = np.ones((1, length), bool)
        single = tools.content(entry.inputs[0], 0, row, length)[None].astype(np.float64)
        result = alone(entry.params, [single], [one], np.array([row]))
        by_row = tools.results_by_row(entry, result, [one])
        for a, b in zip(ours, by_row, strict=True):
            assert_near(a[row], b[0], f"row {row}")
        total = jax.tree.map(np.add, total, result[1][0])
    for a, b in zip(jax.tree.leaves(batch[1][0]), jax.tree.leaves(total), strict=True):
        assert_near(a, b, "gradient in a parameter")


def assert_near(a, b, where):
    """To rounding of the largest entry: sums of a batch are taken in another order."""
    scale = np.abs(np.asarray(b, np.float64)).max(initial=0.0)
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * scale + 1e-10, err_msg=where)


@pytest.mark.parametrize("name", sorted(LINKS))
def test_each_link_can_be_made(name):
    call, params, features = LINKS[name].make(4, nnx.Rngs(0))
    x, mask = np.ones((2, 4, 4), np.float32), np.ones((2, 4), bool)
    y, _ = jax.eval_shape(call, params, x, mask)
    if not LINKS[name].flat:
        assert y.shape[-1] == features
