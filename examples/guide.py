"""Masks from the beginning: from padding to a layer of your own that uses the mask.

For someone who knows Flax and has never used a mask. Read it from top to bottom, or run it and
read what it prints: `python examples/guide.py`. It takes seconds on a CPU.

One idea carries everything: the mask is an ordinary value. Whatever works on padded sequences
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

# Three sentences as token ids. An array is rectangular, so the short ones are padded, and from
# then on something must say which steps are real: a boolean mask [batch, time], True = real.

sentences = [[71, 63, 7], [73, 0, 32, 55, 92], [83]]
ids, mask = jm.pad_sequences(sentences)

show("ids", ids)
show("mask, row by row", mask)

# The second sentence holds a genuine id 0. The mask comes from the lengths, so it stays real.


# ----------------------------------------------------------------------------------------------
title("2. What a mask is for")

# Average the ids of each row. Without the mask, the padding is averaged too, and says nothing.

show("wrong: jnp.mean", jnp.mean(ids, axis=1))
mean, row_mask = jm.pool.mean(ids, mask)
show("right: jm.pool.mean", mean)

# Time is gone, so the mask that comes back marks rows: True where a row had a real step.

show("its row mask", row_mask)


# ----------------------------------------------------------------------------------------------
title("3. Where masks begin")

# Data often comes without its mask: the padding was made elsewhere. Three ways to find it again.

rngs = nnx.Rngs(0)
embed = jm.nn.Embed(100, 8, mask_zero=True, rngs=rngs)  # id 0 is padding
_, from_zeros = embed(jnp.array([[71, 63, 7, 0], [83, 0, 0, 0]]))
show("Embed(mask_zero=True)", from_zeros)

measured = jnp.array([[[1.5, 0.0], [0.0, 2.5], [-1.0, -1.0]]])
_, from_sentinel = jm.nn.Masking(-1.0)(measured)  # a step is padding if all its features are -1
show("Masking(-1.0)", from_sentinel)

show("masks.from_lengths", jm.masks.from_lengths(jnp.array([3, 1]), time=4))

# Here the mask of `pad_sequences` is at hand, so the table needs no `mask_zero`.

embed = jm.nn.Embed(100, 8, rngs=rngs)


# ----------------------------------------------------------------------------------------------
title("4. Sequential carries the mask")

# Layers of jaxmask take a pair and return one. Flax's own layers that act on each step alone, and
# JAX's activations, join as they are.

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

# Padding changes nothing: neither how much of it there is, nor what stands in it.

longer_ids, longer_mask = jm.pad_sequences(sentences, maxlen=40, value=-999)
longer_logits, _ = run(longer_ids, longer_mask)
show("40 steps, padded with -999: equal", np.allclose(logits, longer_logits, atol=1e-6))


# ----------------------------------------------------------------------------------------------
title("5. A layer that does not support masks is an error that teaches")

# This one subtracts the mean over time. It would mix padding into every real step. Other
# libraries drop the mask here, at most with a warning, and the numbers are wrong from then on.


def centre(x):
    return x - jnp.mean(x, axis=1, keepdims=True)


x = jax.random.normal(jax.random.key(1), (3, 5, 2))
try:
    jm.nn.Sequential(centre)(x, mask)
except jm.MaskError as error:
    print(error)

# The rest of this guide takes those four ways out, one after the other.


# ----------------------------------------------------------------------------------------------
title("6. It acts on each step alone: Passthrough, or register")


def unit_length(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


y, same_mask = jm.nn.Passthrough(unit_length)(x, mask)
show("length of each step of row 0", jnp.linalg.norm(y[0], axis=-1))
show("the mask passed by", same_mask)

# `Passthrough` hides the padding from the function, so a zero there makes no 0 / 0, neither in
# the result nor in the gradient. What you use in many places is registered once instead.

jm.nn.register(unit_length, jm.nn.Passthrough)
y_again, _ = jm.nn.Sequential(unit_length)(x, mask)
show("registered: equal", bool(jnp.all(y == y_again)))


# ----------------------------------------------------------------------------------------------
title("7. It needs the mask, or changes it: take one, return one")

# A masked layer is any callable `(x, mask) -> (y, mask)`: a function, a class, an `nnx.Module`.
# `Sequential` knows it by its second parameter, named `mask`. There is no base class. So this is
# `centre` as it should be: the mean of the real steps alone, and 0 in the padding of the result.


def centre_real(x, mask=None):
    mean, _ = jm.pool.mean(x, mask)
    return jm.ops.fill(x - mean[:, None], mask)


# And this one changes the mask: it keeps every second step, so it keeps every second bit.


def every_second_step(x, mask=None):
    return x[:, ::2], None if mask is None else mask[:, ::2]


y, shorter_mask = jm.nn.Sequential(centre_real, every_second_step)(x, mask)
show("before", mask)
show("after", shorter_mask)

# `Sequential` checks what comes back. Forget to shorten the mask, and the layer is named again.


def every_second_value(x, mask=None):
    return x[:, ::2], mask


try:
    jm.nn.Sequential(centre_real, every_second_value)(x, mask)
except jm.MaskError as error:
    print(error)


# ----------------------------------------------------------------------------------------------
title("8. It consumes the mask, or does without: Consume and DropMask")

# The average of the real steps, by hand. Two traps are in it. Select with `where`, for `x * mask`
# keeps nan and inf: 0 * nan is nan. And divide by at least 1, for a row may have no real step.


def my_mean(x, mask):
    total = jnp.sum(jnp.where(mask[..., None], x, 0), axis=1)
    steps = jnp.sum(mask, axis=1, keepdims=True)
    return total / jnp.maximum(steps, 1)


y, no_mask = jm.nn.Consume(my_mean)(x, mask)
show("my_mean", y)
show("jm.pool.mean: equal", np.allclose(y, jm.pool.mean(x, mask)[0], atol=1e-6))
show("mask after it", no_mask)

# A mask of None means: every step is real. `DropMask` ends a mask without using it: padding
# becomes 0 and counts from there on. After it even `centre` runs, and you have said so.

y, no_mask = jm.nn.Sequential(jm.nn.DropMask(), centre)(x, mask)
show("mask after DropMask", no_mask)


# ----------------------------------------------------------------------------------------------
title("9. Asking for the mask alone: compute_mask")

# The mask that a layer or a whole model would return, without its values.

front = jm.nn.Sequential(embed, every_second_step)
show("mask after embed and every second", front.compute_mask(ids, mask))
show("mask of the whole classifier", model.compute_mask(ids, mask))


# ----------------------------------------------------------------------------------------------
title("10. Left or right padding: the same state in the end")

# The LSTM skips padding wherever it lies, so its last state is that of the last real step.

lstm = jm.nn.LSTM(8, 16, return_sequences=False, rngs=rngs)
reader = nnx.jit(jm.nn.Sequential(embed, lstm))

left_ids, left_mask = jm.pad_sequences(sentences, padding="pre")
show("padded on the left", left_mask)
from_left, _ = reader(left_ids, left_mask)
from_right, _ = reader(ids, mask)
show("last states: equal", np.allclose(from_left, from_right, atol=1e-6))


# ----------------------------------------------------------------------------------------------
title("11. An empty row is a value")

# A row without any real step gives 0, and False in the mask, and no gradient: never nan.

empty_ids, empty_mask = jm.pad_sequences([[71, 63, 7], []])
state, row_mask = reader(empty_ids, empty_mask)
show("its state is 0", not jnp.any(state[1]))
show("row mask", row_mask)


# ----------------------------------------------------------------------------------------------
title("12. Check for leaks")

# Is `my_mean` right, gradients included? `jm.leak.check` puts nan, inf and noise into the padding,
# appends more of it, and compares. It takes any function of `(x, mask)`, from jaxmask or not.

show("my_mean is padding-proof", jm.leak.check(my_mean, x, mask).ok)
show("centre_real is padding-proof", jm.leak.check(centre_real, x, mask).ok)


def careless_mean(x, mask):
    return jnp.sum(x * mask[..., None], axis=1) / jnp.sum(mask, axis=1, keepdims=True)


report = jm.leak.check(careless_mean, x, mask)
show("careless_mean is padding-proof", report.ok)
print(report)

# One line does it in a test of yours: `jm.leak.assert_padding_invariant(my_mean, x, mask)`.
