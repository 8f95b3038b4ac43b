"""Reading and writing steps."""

import jax
import jax.numpy as jnp

from tests.ragged.alone import Row, integers

PLAIN = {
    "first": lambda x: x[0],
    "last": lambda x: x[-1],
    "without_the_first": lambda x: x[1:],
    "without_the_last": lambda x: x[:-1],
    "differences": lambda x: x[1:] - x[:-1],
    "every_second": lambda x: x[::2],
    "every_second_from_one": lambda x: x[1::2],
    "reversed": lambda x: x[::-1],
    "reversed_every_second": lambda x: x[::-2],
    "flip": lambda x: jnp.flip(x, 0) * jnp.arange(x.shape[0])[:, None],
    "flip_both": lambda x: jnp.flip(x),
    "roll": lambda x: jnp.roll(x, 1, 0),
    "roll_back": lambda x: jnp.roll(x, -1, 0),
    "roll_features": lambda x: jnp.roll(x, 1, 1),
    "shift_right": lambda x: jnp.concatenate([jnp.zeros((1, 3)), x[:-1]]),
    "take_twice": lambda x: x[jnp.array([0, 0])],
    "take_from_the_end": lambda x: x[jnp.array([0, -1])],
    "take_features": lambda x: x[:, jnp.array([2, 0])],
    "take_clipped": lambda x: jnp.take(x, jnp.array([0, 7]), axis=0, mode="clip"),
    "take_filled": lambda x: jnp.nan_to_num(x.at[jnp.array([0, 2, 7])].get(mode="fill")),
    "take_filled_with_zero": lambda x: x.at[jnp.array([0, 2, 7])].get(mode="fill", fill_value=0),
    "at_a_computed_place": lambda x: x[(x[:, 0] > 0).sum() % x.shape[0]],
    "take_along_axis": lambda x: jnp.take_along_axis(x, jnp.argsort(x, 0), 0),
    "permuted": lambda x: x[jnp.argsort(x[:, 0])],
    "set_the_first": lambda x: x.at[0].set(1.0),
    "set_the_last": lambda x: x.at[-1].set(2.0),
    "set_a_feature": lambda x: x.at[:, 1].set(0.0) * 2,
    "add_at": lambda x: x.at[jnp.array([0, 0])].add(3.0),
    "add_steps_to_slots": lambda x: jnp.zeros((3, 3)).at[jnp.arange(x.shape[0]) % 3].add(x),
    "multiply_at": lambda x: x.at[0].multiply(3.0),
    "max_at": lambda x: jnp.full((2, 3), -9.0).at[jnp.arange(x.shape[0]) % 2].max(x),
    "set_after_the_first": lambda x: x.at[1:].set(0.0),
    "set_before_the_last": lambda x: x.at[:-1].set(0.0),
    "add_after_the_first": lambda x: x.at[1:].add(x[:-1]),
    "set_every_second": lambda x: x.at[::2].set(0.0),
    "dynamic_index": lambda x: jax.lax.dynamic_index_in_dim(x, x.shape[0] // 2, keepdims=False),
    "dynamic_slice_at_the_end": lambda x: jax.lax.dynamic_slice(x, (9, 1), (1, 2)),
    "dynamic_update": lambda x: jax.lax.dynamic_update_slice(x, jnp.ones((1, 3)), (9, 0)),
    "slice_in_dim": lambda x: jax.lax.slice_in_dim(x, 0, x.shape[0] - 1, axis=0),
    "segment_sum": lambda x: jax.ops.segment_sum(x, jnp.arange(x.shape[0]) // 2, 3),
    "segment_max": lambda x: jax.ops.segment_max(x, jnp.arange(x.shape[0]) % 2 * 0, 1),
    "lookup": lambda x, w: w[jnp.arange(x.shape[0]) % 3] * x,
    "position_embedding": lambda x, w: x + jnp.tile(w, (2, 1))[: x.shape[0]],
    "boolean_where_index": lambda x: jnp.where(jnp.arange(x.shape[0])[:, None] == 0, 0.0, x),
    "log_of_differences": lambda x: jnp.log(jnp.abs(x[1:] - x[:-1])).sum(0),
    "quotient_of_neighbours": lambda x: x[1:] / x[:-1],
    "root_of_differences": lambda x, w: jnp.sqrt(jnp.abs((x[1:] - x[:-1]) @ w)),
    "split_at_one": lambda x: jnp.split(x, [1])[0],
}
TWO = {
    "last_two": lambda x: x[-2:],
    "first_two": lambda x: x[:2],
    "second": lambda x: x[1],
    "inner": lambda x: x[1:-1],
    "second_half": lambda x: x[x.shape[0] // 2 :].sum(0),
    "mean_of_differences": lambda x: (x[1:] - x[:-1]).mean(0),
    "max_without_the_first": lambda x: x[1:].max(0),
    "diff": lambda x: jnp.diff(x, axis=0),
    "second_diff": lambda x: jnp.diff(x, n=2, axis=0),
    "trapezoid": lambda x: jnp.trapezoid(x, axis=0),
    "gradient": lambda x: jnp.gradient(x, axis=0)[1:-1],
    "swap_the_ends": lambda x: x.at[0].set(x[-1]).at[-1].set(x[0]),
}
INTEGERS = {
    "count_of_each": lambda x: jnp.zeros(4).at[x].add(1.0),
    "bincount": lambda x: jnp.bincount(x, length=4),
    "embedding_sum": lambda x, w: w[x % 3].sum(0),
    "scores_of_bigrams": lambda x, w: w[x[:-1] % 3, x[1:] % 3].sum(),
    "last_wins": lambda x: (
        jnp.zeros(4, jnp.int32).at[x[::-1]].set(jnp.arange(x.shape[0])[::-1] * 0 + 1)
    ),
}
PROGRAMS = {
    **{name: Row(f) for name, f in PLAIN.items()},
    **{name: Row(f, min_length=2) for name, f in TWO.items()},
    **{name: Row(f, domain=integers, features=None) for name, f in INTEGERS.items()},
    "gather_from_another": Row(
        lambda x, z: z[jnp.arange(x.shape[0]) % z.shape[0]] * x, second=True
    ),
}
