"""docs/recurrent_recipes.md: its functions against rows alone and against one long call."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

PAGE = Path(__file__).parents[1] / "docs" / "recurrent_recipes.md"


@pytest.fixture(scope="module")
def page():
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), ours, theirs)


def test_truncated_gradients_are_those_of_the_chunk_of_each_row_alone(page):
    """From the state before it, which is a constant; and the values are those of one long call."""
    model, x, mask, labels = page["Tagger"](nnx.Rngs(1)), page["x"], page["mask"], page["labels"]
    whole = model.run(model.body.initial_carry(3), x, mask)[1][0]
    carry, _ = model.run(model.body.initial_carry(3), x[:, :20], mask[:, :20])
    chunk = tuple(a[:, 20:30] for a in (x, mask, labels))
    grad = nnx.grad(page["chunk_loss"], has_aux=True)
    gradients, (_, _, count) = grad(model, jax.lax.stop_gradient(carry), *chunk)
    _, (logits, _) = model.run(carry, *chunk[:2])
    close(logits, np.where(chunk[1][..., None], whole[:, 20:30], logits))
    assert count == 13  # ten steps of the first row, three of the second
    sums = None
    for row, length in ((0, 10), (1, 3)):
        start = jax.tree.map(lambda a, row=row: a[row : row + 1], carry)

        def alone(model, start=start, row=row, length=length):
            _, (y, _) = model.run(start, chunk[0][row : row + 1, :length], None)
            log_p = jax.nn.log_softmax(y[0])[jnp.arange(length), chunk[2][row, :length]]
            return -jnp.sum(log_p) / 13

        own = nnx.grad(alone)(model)
        sums = own if sums is None else jax.tree.map(jnp.add, sums, own)
    close(gradients, sums)


def test_an_epoch_weighs_every_step_alike(page):
    """With no learning it is the loss of one long call."""
    model, x, mask, labels = page["Tagger"](nnx.Rngs(1)), page["x"], page["mask"], page["labels"]
    still = nnx.Optimizer(model, page["optax"].sgd(0.0), wrt=nnx.Param)
    value = page["epoch"](model, still, x, mask, labels, window=7)
    _, (_, total, count) = page["chunk_loss"](model, model.body.initial_carry(3), x, mask, labels)
    close(value, total / count)


def test_replay_from_a_stored_state_is_what_the_actor_saw(page):
    agent, observations, first = page["agent"], page["observations"], page["is_first"]
    stored = page["collect"](agent, observations, first, 12)
    _, (whole, _) = agent.run(agent.initial_carry(3), observations, resets=first)
    late = slice(12, 24)
    _, (y, _) = agent.run(stored[1], observations[:, late], resets=first[:, late])
    close(y, whole[:, late])


def test_no_gradient_enters_the_burn_in(page):
    agent, values, real = page["agent"], page["values"], page["real"]

    @jax.jit
    def loss(observations, stored):
        return page["replay_loss"](
            *(agent, values, stored, observations, page["is_first"][:, 12:], real),
            *(jnp.ones((3, 12)),),
            burn_in=4,
        )

    observations = page["observations"][:, 12:]
    by_x, by_state = jax.grad(loss, (0, 1))(observations, page["stored"][1])
    assert not np.asarray(by_x)[:, :4].any()
    assert not np.asarray(by_state).any()
    assert np.asarray(by_x)[0, 4:].any(axis=-1).all()
    assert not np.asarray(by_x)[2, 7:].any()  # behind the end of the third row
    other = page["stored"][1] + 1
    assert loss(observations, other) != loss(observations, page["stored"][1])
