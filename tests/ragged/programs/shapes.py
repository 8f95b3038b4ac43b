"""Axes that join, split and move."""

import jax.numpy as jnp

from tests.ragged.alone import Row

PLAIN = {
    "transpose": lambda x: x.T,
    "flatten": lambda x: x.reshape(-1),
    "flatten_across": lambda x: x.T.reshape(-1),
    "split_features": lambda x: x.reshape(x.shape[0], 3, 1),
    "merge_features": lambda x: x[:, :, None].repeat(2, 2).reshape(x.shape[0], 6),
    "expand": lambda x: x[None, :, None],
    "squeeze": lambda x: jnp.squeeze(x[:, None], 1) * 2,
    "broadcast": lambda x: jnp.broadcast_to(x[None], (2, *x.shape)),
    "broadcast_over_time": lambda x: jnp.broadcast_to(x[0], x.shape) + x,
    "repeat_steps": lambda x: jnp.repeat(x, 2, axis=0),
    "tile_steps": lambda x: jnp.tile(x, (2, 1)),
    "tile_features": lambda x: jnp.tile(x, (1, 2)),
    "stack": lambda x: jnp.stack([x, x**2]),
    "stack_inside": lambda x: jnp.stack([x, x**2], 1),
    "interleave": lambda x: jnp.stack([x, -x], 1).reshape(-1, 3),
    "meshgrid": lambda x: jnp.stack(jnp.meshgrid(x[:, 0], x[:, 1]), -1),
    "moveaxis": lambda x: jnp.moveaxis(x[:, :, None], 0, 2),
    "swap_and_sum": lambda x: jnp.swapaxes(x, 0, 1).sum(0),
    "ravel_of_pairs": lambda x: (x[:, None, 0] + x[None, :, 1]).ravel(),
    "full": lambda x: jnp.full((x.shape[0],), 2.5) * x[:, 0],
    "there_and_back": lambda x: x.reshape(-1).reshape(-1, 3),
    "of_all_lengths": lambda x: jnp.ones((x.shape[0], 2)) * x.shape[0],
    "linspace_by_hand": lambda x: x * (jnp.arange(x.shape[0]) / x.shape[0])[:, None],
    "kron": lambda x: jnp.kron(x[:, 0], jnp.array([1.0, 2.0])),
    "pytree": lambda x: {"all": x, "mean": x.mean(0), "pair": (x[0], x[:, 0])},
    "scalar_row": lambda x: x.sum() * 2,
    "vander": lambda x: x[:, :1] ** jnp.arange(4),
}
PROGRAMS = {
    **{name: Row(f) for name, f in PLAIN.items()},
    "of_two_lengths": Row(lambda x, z: (x[:, None, 0] + z[None, :, 0]).reshape(-1), second=True),
    "two_lengths_apart": Row(lambda x, z: (x * 2, z.sum(0), x.sum() * z), second=True),
    "pairs": Row(lambda x: x.reshape(-1, 2, 3).sum(1), multiple_of=2, lengths=(4, 1, 0, 2)),
    "halves": Row(
        lambda x: x.reshape(2, -1, 3)[1] - x.reshape(2, -1, 3)[0],
        multiple_of=2,
        lengths=(4, 1, 0, 2),
    ),
    "one_number_a_step": Row(lambda x: jnp.tanh(x) * x.sum(), features=None),
    "linspace": Row(lambda x: x * jnp.linspace(0, 1, x.shape[0])[:, None], min_length=2),
}
