"""An agent with memory: resets inside an LSTM, burn-in, and episodes of many lengths in a row.

    python examples/rollout.py
    python examples/rollout.py --small

A signal at the start of a corridor says which way to turn at its end, 3 to 10 steps later. Many
corridors are walked side by side, one after another in each row, so a row of experience holds
parts of several episodes: `resets` marks where one begins, and the state is zeros there. Each batch
goes on where the one before it ended; its first steps only warm up the state (burn-in).
"""

import argparse
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import jaxmask as jm

SHORTEST, LONGEST, BURN_IN = 3, 10, 10


class Corridors(NamedTuple):
    """The state of all corridors, `[rows]` each."""

    signal: jax.Array  # 0 or 1
    place: jax.Array
    length: jax.Array

    @classmethod
    def begin(cls, rows: int, key: jax.Array) -> "Corridors":
        signal, length = jax.random.split(key)
        return cls(
            jax.random.bernoulli(signal, shape=(rows,)).astype(jnp.int32),
            jnp.zeros(rows, jnp.int32),
            jax.random.randint(length, (rows,), SHORTEST, LONGEST + 1),
        )

    def look(self) -> jax.Array:
        """Observations `[rows, 3]`: the signal, at the start only, and whether this is the end."""
        shown = jax.nn.one_hot(self.signal, 2) * (self.place == 0)[:, None]
        return jnp.concatenate([shown, self.at_end()[:, None]], axis=-1).astype(jnp.float32)

    def at_end(self) -> jax.Array:
        return self.place == self.length - 1

    def move(self, action: jax.Array, key: jax.Array) -> tuple["Corridors", jax.Array]:
        """The next state and the reward of the turn; after the end a new corridor begins."""
        end = self.at_end()
        reward = jnp.where(end, (action == self.signal) * 1.0, 0.0)
        fresh = self.begin(len(action), key)
        moved = self._replace(place=self.place + 1)
        return jax.tree.map(lambda a, b: jnp.where(end, a, b), fresh, moved), reward


class Agent(nnx.Module):
    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.memory = jm.nn.LSTM(3, features, rngs=rngs)
        self.policy = nnx.Linear(features, 2, rngs=rngs)

    def run(self, carry, x, mask, resets):
        carry, (y, _) = self.memory.run(carry, x, mask, resets=resets)
        return carry, self.policy(y)


class Experience(NamedTuple):
    """What happened, `[rows, steps]` each."""

    x: jax.Array
    resets: jax.Array
    turned: jax.Array  # where an action counts
    actions: jax.Array
    rewards: jax.Array


@functools.partial(nnx.jit, static_argnames="steps")
def act(agent: Agent, carry, corridors: Corridors, key: jax.Array, steps: int):
    """Walk on for some steps."""
    graph, state = nnx.split(agent)

    def step(held, key):
        carry, corridors = held
        x, begins, end = corridors.look(), corridors.place == 0, corridors.at_end()
        everywhere = jnp.ones((len(x), 1), bool)
        agent = nnx.merge(graph, state)
        carry, logits = agent.run(carry, x[:, None], everywhere, begins[:, None])
        choose, go = jax.random.split(key)
        action = jax.random.categorical(choose, logits[:, 0])
        corridors, reward = corridors.move(action, go)
        return (carry, corridors), Experience(x, begins, end, action, reward)

    held, seen = jax.lax.scan(step, (carry, corridors), jax.random.split(key, steps))
    return *held, jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), seen)


@nnx.jit
def learn(agent: Agent, optimizer: nnx.Optimizer, carry, seen: Experience):
    """A policy gradient on the turns, from the state that the batch began with."""
    warm, rest = (
        jax.tree.map(lambda a, part=part: a[:, part], seen)
        for part in (slice(None, BURN_IN), slice(BURN_IN, None))
    )
    everywhere = jnp.ones(seen.turned.shape, bool)

    def loss_of(agent):
        start, _ = agent.run(carry, warm.x, everywhere[:, :BURN_IN], warm.resets)
        start = jax.lax.stop_gradient(start)
        _, logits = agent.run(start, rest.x, everywhere[:, BURN_IN:], rest.resets)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), rest.actions[..., None], -1)
        gain = rest.rewards - 0.5  # what a blind turn earns
        return jm.losses.reduce(-log_p[..., 0] * gain, rest.turned)  # turns are the real steps

    gradients = nnx.grad(loss_of)(agent)
    optimizer.update(agent, gradients)
    earned = jm.metrics.Mean.empty().update(seen.rewards, seen.turned)
    return earned


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--small", action="store_true", help="a few batches of a small agent")
    options = parser.parse_args()
    batches, features, rows = (2, 8, 4) if options.small else (options.batches, 32, 64)
    agent = Agent(features, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(agent, optax.adam(1e-2), wrt=nnx.Param)
    key = jax.random.key(0)
    carry, corridors = agent.memory.initial_carry(rows), Corridors.begin(rows, key)
    share = 0.5
    for batch in range(batches):
        start = carry
        carry, corridors, seen = act(
            agent, start, corridors, jax.random.fold_in(key, batch), steps=4 * BURN_IN
        )
        share = float(learn(agent, optimizer, start, seen).compute())
        if batch % 50 == 0:
            print(f"batch {batch}: {share:.0%} of the turns are right")
    print(f"{share:.0%} of the turns are right; without memory it is half of them")
    return share


if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", "runs/programs")
    main()
