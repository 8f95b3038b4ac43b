"""Random bits: those of a shorter row are the first bits of a longer one."""

from typing import Any

import jax

from jaxmask._types import Array
from jaxmask.ragged._interpreter.context import ragged_axes
from jaxmask.ragged._interpreter.interpret import REFUSED, Step, rule_for
from jaxmask.ragged._rules.shapes import reshaped


@rule_for("random_bits")
def random_bits(step: Step, keys: Array) -> Any:
    """Draw bits for the longest row, in the order of the row alone."""
    _require_threefry(step, keys)
    shape = step.outputs[0][len(step.inputs[0]) :]
    if not ragged_axes(shape):
        return step.bind(keys)
    total: Any = 1
    for size in shape:
        total = size * total

    def of_one(key: Array) -> Array:
        flat = step.bind(key, shape=(step.context.size(total),))
        # Bits beyond those of the row are noise too: padding must hold copies.
        flat = step.context.repeat_first(flat, (total,))
        return reshaped(step.context, flat, (total,), shape)

    for _ in step.inputs[0]:
        of_one = jax.vmap(of_one)
    return of_one(keys)


@rule_for("random_split")
def random_split(step: Step, keys: Array) -> Any:
    """Split into the keys of the longest row."""
    _require_threefry(step, keys)
    shape = step.outputs[0]
    if ragged_axes(shape, range(1, len(shape))) or step.inputs[0]:
        raise step.refuse("It splits into an array of keys that is ragged on a later axis.")
    return step.repeat_first(step.bind(keys, shape=step.context.shape(step.params["shape"])))


def _require_threefry(step: Step, keys: Array) -> None:
    """Only threefry in its default form draws the n-th bits from n alone."""
    counters = jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
    if str(jax.random.key_impl(keys)) != "threefry2x32" or not counters:
        raise step.refuse(
            "Random numbers of this kind of key depend on the padded shape. Use threefry keys "
            "(`jax.random.key(seed)`) with `jax_threefry_partitionable`, the default."
        )


for _name in ("rng_bit_generator", "rng_uniform", "threefry2x32", "random_gamma"):
    REFUSED[_name] = "What it draws depends on the padded shape."
