"""The corpus would notice: each rule with its mask taken out makes a program of it fail."""

import contextvars
from unittest import mock

import jax
import pytest

from jaxmask.ragged import _preparing as preparing
from jaxmask.ragged._interpreter import context, interpret
from jaxmask.ragged._interpreter.interpret import RULES
from jaxmask.ragged._rules import control, elementwise
from tests.ragged.alone import compare
from tests.ragged.programs import PROGRAMS


def unchecked(row):
    """By its results alone: the check of the padding, which would notice first, is off."""
    contextvars.Context().run(compare, row)


def bare(step, *values):
    """The primitive itself, on padded values."""
    return step.bind(*values)


# The primitive whose rule is taken out, and a program that must notice.
BARE_RULES = {
    "reduce_sum": "reductions.sum",
    "reduce_prod": "reductions.prod",
    "dot_general": "contractions.gram_over_time",
    "reduce_max": "reductions.max",
    "cumsum": "cumulative.cumsum_reverse",
    "cumprod": "cumulative.cumprod_reverse",
    "cumlogsumexp": "cumulative.cumlogsumexp_reverse",
    "sort": "sorting.sort",
    "scatter-add": "indexing.add_steps_to_slots",
}


@pytest.mark.parametrize("name", BARE_RULES)
def test_a_rule_without_its_mask_is_noticed(name):
    with mock.patch.dict(RULES, {name: bare}), pytest.raises(AssertionError):
        unchecked(PROGRAMS[BARE_RULES[name]])


def _no_fill(self, value, shape, axes, constant):
    return value


def _no_repeat(self, value, shape, axes=None):
    return value


def _no_mask(self, shape, axes):
    return None


def _no_guard(step, values):
    return list(values)


def _last_is_first(ctx, x, length):
    return x


_sources = preparing._sources


def _no_copies_of_the_first(mask, lengths, valid, rows, physical):
    whole = _sources(mask, 0 * lengths + physical, valid, rows, physical)
    return whole._replace(own=_sources(mask, lengths, valid, rows, physical).own)


METHODS = {
    "copies of the first step": (
        preparing,
        "_sources",
        _no_copies_of_the_first,
        "elementwise.inverse_of_parameters",
    ),
    "fill": (context.Context, "fill", _no_fill, "contractions.attention"),
    "fill of a convolution": (context.Context, "fill", _no_fill, "windows.same"),
    "repeat_first": (
        context.Context,
        "repeat_first",
        _no_repeat,
        "indexing.root_of_differences",
    ),
    "copies before what is not linear": (
        interpret,
        "LENIENT",
        set(RULES),
        "indexing.root_of_differences",
    ),
    "guard of empty axes": (
        elementwise,
        "guarded",
        _no_guard,
        "indexing.root_of_differences",
    ),
    "start of reverse loops": (
        control,
        "_repeat_last",
        _last_is_first,
        "control.reverse_with_a_singular_start",
    ),
    "carry of padded steps": (
        control,
        "_select",
        lambda real, then, other: list(then),
        "control.rnn",
    ),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", METHODS)
def test_a_helper_taken_out_is_noticed(name):
    owner, attribute, mutant, program = METHODS[name]
    jax.clear_caches()
    with mock.patch.object(owner, attribute, mutant), pytest.raises(AssertionError):
        unchecked(PROGRAMS[program])
