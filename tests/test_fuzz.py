"""Random stacks of layers against each row alone: `pytest tests/test_fuzz.py --fuzz 100`.

Off by default. A stack that fails is the same again under its seed: `--fuzz 1 --fuzz-seed SEED`.
"""

import jax
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from jaxmask import testing

# Each makes a layer of so many features, and says how many come out.
ANYWHERE = {
    "LSTM": lambda n, rngs: (jm.nn.LSTM(n, 4, rngs=rngs), 4),
    "LSTM:reverse": lambda n, rngs: (jm.nn.LSTM(n, 4, reverse=True, rngs=rngs), 4),
    "GRU": lambda n, rngs: (jm.nn.GRU(n, 4, rngs=rngs), 4),
    "SimpleRNN": lambda n, rngs: (jm.nn.SimpleRNN(n, 4, rngs=rngs), 4),
    "RNN": lambda n, rngs: (jm.nn.RNN(nnx.GRUCell(n, 3, rngs=rngs)), 3),
    "Bidirectional": lambda n, rngs: (
        jm.nn.Bidirectional(jm.nn.LSTM(n, 3, rngs=rngs), jm.nn.LSTM(n, 3, rngs=rngs)),
        6,
    ),
    "MinGRU": lambda n, rngs: (jm.nn.MinGRU(n, 4, rngs=rngs), 4),
    "Linear": lambda n, rngs: (nnx.Linear(n, 5, rngs=rngs), 5),
    "nnx.LayerNorm": lambda n, rngs: (nnx.LayerNorm(n, rngs=rngs), n),
    "LayerNorm": lambda n, rngs: (jm.nn.LayerNorm(n, rngs=rngs), n),
    "RMSNorm": lambda n, rngs: (jm.nn.RMSNorm(n, rngs=rngs), n),
    "gelu": lambda n, rngs: (nnx.gelu, n),
    "Passthrough": lambda n, rngs: (jm.nn.Passthrough(jax.numpy.tanh), n),
    "Flip": lambda n, rngs: (jm.nn.Flip(), n),
    "Upsample": lambda n, rngs: (jm.nn.Upsample(2), n),
}
ON_THE_RIGHT = ANYWHERE | {
    "Conv1D": lambda n, rngs: (jm.nn.Conv1D(n, 4, 3, rngs=rngs), 4),
    "DepthwiseConv1D": lambda n, rngs: (jm.nn.DepthwiseConv1D(n, 3, rngs=rngs), n),
    "Pad": lambda n, rngs: (jm.nn.Pad((1, 2)), n),
}
POOLS = {
    "GlobalMeanPool": lambda n, rngs: jm.nn.GlobalMeanPool(),
    "GlobalMaxPool": lambda n, rngs: jm.nn.GlobalMaxPool(),
    "AttentionPool": lambda n, rngs: jm.nn.AttentionPool(n, rngs=rngs),
    "LastStep": lambda n, rngs: jm.nn.LastStep(),
}


def pytest_generate_tests(metafunc):
    config = metafunc.config
    first, number = config.getoption("--fuzz-seed"), config.getoption("--fuzz")
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(first, first + number))


def stack(draw, table):
    """Some layers, sometimes pooled, and their names."""
    rngs, features = nnx.Rngs(int(draw.integers(2**31))), 3
    names, layers = list(draw.choice(sorted(table), int(draw.integers(1, 5)))), []
    for name in names:
        layer, features = table[name](features, rngs)
        layers.append(layer)
    if draw.random() < 0.3:
        names.append(str(draw.choice(sorted(POOLS))))
        layers.append(POOLS[names[-1]](features, rngs))
    return jm.nn.Sequential(*layers), names


def ragged(draw, layout):
    """A batch with a row without a real step, and one of the poisons in its padding."""
    time = int(draw.integers(2, 7))
    lengths = np.append(draw.integers(1, time + 1, 3), 0)
    mask = np.arange(time) < lengths[:, None]
    if layout == "left":
        mask = mask[:, ::-1]
    if layout == "holes":
        mask = np.stack([draw.permutation(row) for row in mask])
    x = draw.normal(size=(*mask.shape, 3)).astype(np.float32)
    x[~mask] = draw.choice(testing.POISONS)
    return x, mask


def test_a_random_stack_is_each_row_alone(seed):
    draw = np.random.default_rng(seed)
    layout = str(draw.choice(testing.LAYOUTS))
    model, names = stack(draw, ON_THE_RIGHT if layout == "right" else ANYWHERE)
    x, mask = ragged(draw, layout)
    graph, state = nnx.split(model)
    try:
        testing.assert_row_alone(jax.jit(lambda x, mask: nnx.merge(graph, state)(x, mask)), x, mask)
        jm.leak.assert_padding_invariant(model, x, mask)
    except Exception as error:
        error.add_note(f"seed {seed}, {layout}: {', '.join(names)}")
        raise


@pytest.mark.parametrize("name", sorted({*ON_THE_RIGHT, *POOLS}))
def test_each_layer_of_the_stacks_can_be_made(name):
    maker = ON_THE_RIGHT.get(name) or POOLS[name]
    made = maker(3, nnx.Rngs(0))
    layer, features = made if isinstance(made, tuple) else (made, 3)
    x, mask = np.ones((2, 4, 3), np.float32), np.ones((2, 4), bool)
    y, _ = jax.eval_shape(jm.nn.Sequential(layer), x, mask)
    assert y.shape[-1] == features
