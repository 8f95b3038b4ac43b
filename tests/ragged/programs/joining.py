"""Steps behind one another, and padding inside the program."""

import jax
import jax.numpy as jnp

from tests.ragged.alone import Row

ZERO = jnp.zeros((1, 3))
PROGRAMS = {
    "prepend": Row(lambda x, w: jnp.concatenate([w[:1], x])),
    "append": Row(lambda x, w: jnp.concatenate([x, w[:1]])),
    "prepend_and_append": Row(lambda x, w: jnp.concatenate([w[:1], x, w[1:2]])),
    "append_many": Row(lambda x, w: jnp.concatenate([x, w, w])),
    "twice": Row(lambda x: jnp.concatenate([x, x])),
    "thrice_and_one": Row(lambda x, w: jnp.concatenate([x, -x, w[:1], x**2])),
    "palindrome": Row(lambda x: jnp.concatenate([x, x[::-1]])),
    "features": Row(lambda x: jnp.concatenate([x, x**2], -1)),
    "with_another": Row(lambda x, z: jnp.concatenate([x, z]), second=True),
    "between": Row(lambda x, z, w: jnp.concatenate([w[:1], x, w[1:2], z]), second=True),
    "attention_over_both": Row(
        lambda x, z: jax.nn.softmax(x @ jnp.concatenate([x, z]).T) @ jnp.concatenate([x, z]),
        second=True,
    ),
    "append_then_read": Row(lambda x, w: jnp.concatenate([x, w[:1]])[-1]),
    "pad_left": Row(lambda x: jnp.pad(x, ((2, 0), (0, 0)))),
    "pad_right": Row(lambda x: jnp.pad(x, ((0, 2), (0, 0)), constant_values=3.0)),
    "pad_both": Row(lambda x: jnp.pad(x, ((1, 1), (1, 0)))),
    "pad_inside": Row(lambda x: jax.lax.pad(x, 0.5, ((1, 2, 1), (0, 0, 0)))),
    "pad_edge": Row(lambda x: jnp.pad(x, ((1, 1), (0, 0)), mode="edge")),
    "crop_by_pad": Row(lambda x: jax.lax.pad(x, 0.0, ((-1, 1, 0), (0, 0, 0)))),
    "crop_the_end": Row(lambda x: jax.lax.pad(x, 0.0, ((1, -1, 0), (0, 0, 0)))),
    "insert_zeros": Row(lambda x: jax.lax.pad(x, 0.0, ((0, 0, 2), (0, 0, 0)))),
    "cls_and_mean": Row(lambda x, w: jnp.concatenate([w[:1], jnp.tanh(x)]).mean(0)),
    "append_own_mean": Row(lambda x: jnp.concatenate([x, x.mean(0, keepdims=True)])),
    "hstack": Row(lambda x: jnp.hstack([x, x])),
    "vstack": Row(lambda x: jnp.vstack([x, x[:1]])),
    "append_scalar": Row(lambda x: jnp.append(x, 1.0), features=None),
    "insert_first": Row(lambda x: jnp.concatenate([jnp.zeros(1), jnp.cumsum(x)]), features=None),
    "window_of_three": Row(
        lambda x: jnp.stack(
            [jnp.concatenate([ZERO, x[:-1]]), x, jnp.concatenate([x[1:], ZERO])], 1
        ).sum(1)
    ),
}
