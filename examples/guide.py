"""A tutorial on masks: from padding to a layer of your own that uses the mask.

For readers who know Flax and have never used a mask. Read it from top to bottom, or run it and
read what it prints: `python examples/guide.py`. It takes seconds on a CPU.

One idea underlies everything: the mask is an ordinary value. Whatever works on padded sequences
takes a pair `(x, mask)` and returns a pair `(y, mask)`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmask as jm


def title(text):
    print(f"\n{text}\n{'-' * len(text)}")


def show(label, value):
    """Print floats rounded, and a mask as `#` for a real step and `.` for padding."""
    if isinstance(value, jax.Array | np.ndarray):
        array = np.asarray(value)
        array = array.astype(float).round(3) if array.dtype.kind == "f" else array
        value = draw(array) if array.dtype == bool else array.tolist()
    print(f"{label:>34}   {value}")


def draw(mask):
    rows = np.where(np.atleast_2d(mask), "#", ".")
    return "   ".join("".join(row) for row in rows)


# ----------------------------------------------------------------------------------------------
title("1. Padding returns its mask")

# Three sentences as token ids. Arrays are rectangular, so the short ones are padded, and from then
# on something must say which steps are real: a boolean mask [batch, time], True = real.

sentences = [[71, 63, 7], [73, 0, 32, 55, 92], [83]]
ids, mask = jm.pad_sequences(sentences)

show("ids", ids)
show("mask, row by row", mask)

# The second sentence contains a genuine id 0. The mask comes from the lengths, so it stays real.


# ----------------------------------------------------------------------------------------------
title("2. What a mask is for")

# Average the ids of each row. Without the mask, the padding is silently averaged too.

show("wrong: jnp.mean", jnp.mean(ids, axis=1))
mean, row_mask = jm.pool.mean(ids, mask)
show("right: jm.pool.mean", mean)

# The time axis is gone, so the returned mask marks rows: True where a row had a real step.

show("its row mask", row_mask)


# ----------------------------------------------------------------------------------------------
title("3. Where masks begin")

# Data that was padded elsewhere often comes without a mask. Three ways to recover it.

rngs = nnx.Rngs(0)
embed = jm.nn.Embed(100, 8, mask_zero=True, rngs=rngs)  # id 0 is padding
_, from_zeros = embed(jnp.array([[71, 63, 7, 0], [83, 0, 0, 0]]))
show("Embed(mask_zero=True)", from_zeros)

measured = jnp.array([[[1.5, 0.0], [0.0, 2.5], [-1.0, -1.0]]])
_, from_sentinel = jm.nn.Masking(-1.0)(measured)  # a step is padding if all its features are -1
show("Masking(-1.0)", from_sentinel)

show("masks.from_lengths", jm.masks.from_lengths(jnp.array([3, 1]), time=4))

# Here we have the mask from `pad_sequences`, so the embedding needs no `mask_zero`.

embed = jm.nn.Embed(100, 8, rngs=rngs)


# ----------------------------------------------------------------------------------------------
title("4. Sequential carries the mask")

# jaxmask layers take a pair and return one. Flax's own per-step layers and JAX's activations work
# unchanged.

model = jm.nn.Sequential(
    embed,
    nnx.Linear(8, 8, rngs=rngs),
    nnx.relu,
    jm.nn.LSTM(8, 16, rngs=rngs),
    jm.nn.GlobalMeanPool(),
    nnx.Linear(16, 2, rngs=rngs),
)
run = nnx.jit(model)

logits, row_mask = run(ids, mask)
show("logits", logits)
show("row mask", row_mask)

# Padding changes nothing: neither its amount nor its values matter.

longer_ids, longer_mask = jm.pad_sequences(sentences, maxlen=40, value=-999)
longer_logits, _ = run(longer_ids, longer_mask)
show("40 steps, padded with -999: equal", np.allclose(logits, longer_logits, atol=1e-6))


# ----------------------------------------------------------------------------------------------
title("5. A layer that does not support masks is an error that helps")

# This layer subtracts the mean over time, which would mix padding into every real step. Other
# libraries drop the mask here, at most with a warning, and the results are wrong from then on.


def centre(x):
    return x - jnp.mean(x, axis=1, keepdims=True)


x = jax.random.normal(jax.random.key(1), (3, 5, 2))
try:
    jm.nn.Sequential(centre)(x, mask)
except jm.MaskError as error:
    print(error)

# The rest of this guide goes through these four solutions.


# ----------------------------------------------------------------------------------------------
title("6. It acts on each step alone: Passthrough, or register")


def unit_length(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


y, same_mask = jm.nn.Passthrough(unit_length)(x, mask)
show("length of each step of row 0", jnp.linalg.norm(y[0], axis=-1))
show("the mask, unchanged", same_mask)

# `Passthrough` hides the padding from the function, so a zero there causes no 0 / 0 in the result
# or the gradient. Register a layer once if you use it in many places.

jm.nn.register(unit_length, jm.nn.Passthrough)
y_again, _ = jm.nn.Sequential(unit_length)(x, mask)
show("registered: equal", bool(jnp.all(y == y_again)))


# ----------------------------------------------------------------------------------------------
title("7. It needs the mask, or changes it: take one, return one")

# A masked layer is any callable `(x, mask) -> (y, mask)`: a function, a class, an `nnx.Module`.
# `Sequential` recognises it by its second parameter, named `mask`. There is no base class. Here is
# `centre` done right: the mean over real steps only, and 0 in the padding of the result.


def centre_real(x, mask=None):
    mean, _ = jm.pool.mean(x, mask)
    return jm.ops.fill(x - mean[:, None], mask)


# This one changes the mask: it keeps every second step, so it keeps every second mask entry.


def every_second_step(x, mask=None):
    return x[:, ::2], None if mask is None else mask[:, ::2]


y, shorter_mask = jm.nn.Sequential(centre_real, every_second_step)(x, mask)
show("before", mask)
show("after", shorter_mask)

# `Sequential` checks the result. If you forget to shorten the mask, the error names the layer.


def every_second_value(x, mask=None):
    return x[:, ::2], mask


try:
    jm.nn.Sequential(centre_real, every_second_value)(x, mask)
except jm.MaskError as error:
    print(error)


# ----------------------------------------------------------------------------------------------
title("8. It consumes the mask, or does without: Consume and DropMask")

# The mean over real steps, by hand. There are two traps. Select with `where`, since `x * mask`
# keeps nan and inf (0 * nan is nan). And divide by at least 1, since a row may have no real step.


def my_mean(x, mask):
    total = jnp.sum(jnp.where(mask[..., None], x, 0), axis=1)
    steps = jnp.sum(mask, axis=1, keepdims=True)
    return total / jnp.maximum(steps, 1)


y, no_mask = jm.nn.Consume(my_mean)(x, mask)
show("my_mean", y)
show("jm.pool.mean: equal", np.allclose(y, jm.pool.mean(x, mask)[0], atol=1e-6))
show("mask after it", no_mask)

# A mask of None means that every step is real. `DropMask` discards a mask without using it: padding
# becomes 0 and counts as real from there on. After it even `centre` runs, because you asked for it.

y, no_mask = jm.nn.Sequential(jm.nn.DropMask(), centre)(x, mask)
show("mask after DropMask", no_mask)


# ----------------------------------------------------------------------------------------------
title("9. Asking for the mask alone: compute_mask")

# The mask that a layer or a whole model would return, without its values.

front = jm.nn.Sequential(embed, every_second_step)
show("mask after embed and every second", front.compute_mask(ids, mask))
show("mask of the whole classifier", model.compute_mask(ids, mask))


# ----------------------------------------------------------------------------------------------
title("10. Left or right padding: the same last state")

# The LSTM skips padding anywhere, so its last state is that of the last real step.

lstm = jm.nn.LSTM(8, 16, return_sequences=False, rngs=rngs)
reader = nnx.jit(jm.nn.Sequential(embed, lstm))

left_ids, left_mask = jm.pad_sequences(sentences, padding="pre")
show("padded on the left", left_mask)
from_left, _ = reader(left_ids, left_mask)
from_right, _ = reader(ids, mask)
show("last states: equal", np.allclose(from_left, from_right, atol=1e-6))


# ----------------------------------------------------------------------------------------------
title("11. An empty row gives a value")

# A row without real steps gives 0, False in the mask, and no gradient: never nan.

empty_ids, empty_mask = jm.pad_sequences([[71, 63, 7], []])
state, row_mask = reader(empty_ids, empty_mask)
show("its state is 0", not jnp.any(state[1]))
show("row mask", row_mask)


# ----------------------------------------------------------------------------------------------
title("12. Check for leaks")

# Is `my_mean` right, gradients included? `jm.leak.check` proves what it can, puts nan, inf and
# noise into the padding for the rest, and appends more of it. It takes any function of `(x, mask)`.

show("my_mean is padding-proof", jm.leak.check(my_mean, x, mask).ok)
show("centre_real is padding-proof", jm.leak.check(centre_real, x, mask).ok)


def careless_mean(x, mask):
    return jnp.sum(x * mask[..., None], axis=1) / jnp.sum(mask, axis=1, keepdims=True)


report = jm.leak.check(careless_mean, x, mask)
show("careless_mean is padding-proof", report.ok)
print(report)

# In your own tests, one line does this: `jm.leak.assert_padding_invariant(my_mean, x, mask)`.
