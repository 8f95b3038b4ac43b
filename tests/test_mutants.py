"""The tests are tested: the laws and the check tell wrong layers from right ones."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from tests import optimised, test_composed, test_laws  # noqa: F401  they fill LAWS
from tests import rows as tools
from tests.law import LAWS, way_to_compile
from tests.mutants.right import RIGHT
from tests.mutants.wrong import WRONG
from tests.registry import REGISTRY

ROWS = np.arange(4)


def checked(entry, moves=(), lengths=(5, 3, 1, 2)):
    """The report of `leak.check` on an entry of one mask."""
    masks = tools.masks_for(entry, "right", lengths=[lengths])
    xs = [jnp.asarray(x) for x in tools.arguments(entry, masks, ROWS)]

    def function(params, xs, mask):
        pairs = entry.call(params, xs, [mask], ROWS)
        return [pair[0] if pair[1] is None else pair for pair in pairs]

    return jm.leak.check(
        function, xs, jnp.asarray(masks[0]), moves=moves, params=entry.params, poison="all"
    )


def obey(law, entry):
    """Run one law over one entry, compiled as that law is."""
    with optimised.compiled(way_to_compile(LAWS[law], entry)):
        LAWS[law](entry)


@pytest.mark.parametrize("mutant", WRONG, ids=str)
def test_a_law_catches(mutant):
    """By a comparison that fails; an unrelated error does not count."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        obey(mutant.law, mutant.entry)


@pytest.mark.sampled(9)
@pytest.mark.parametrize("mutant", [m for m in WRONG if m.leaks], ids=str)
def test_the_check_catches(mutant):
    assert not checked(mutant.entry, mutant.moves, mutant.lengths).ok


@pytest.mark.sampled(9)
@pytest.mark.parametrize("mutant", [m for m in WRONG if not m.leaks], ids=str)
def test_the_check_is_silent_where_nothing_leaks(mutant):
    """Wrong, but not by its padding: that is for the laws to say."""
    assert checked(mutant.entry, mutant.moves, mutant.lengths).ok


# The laws hold for the whole registry as well; here they meet plain functions that share no code.
COMPARISONS = (
    *("padding_changes_nothing", "zero_padding", "row_alone", "layouts", "empty_rows"),
    *("gradients_are_slopes", "nan_stays_in_its_row", "second_derivatives"),
)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("subject", RIGHT, ids=str)
def test_no_law_catches(subject):
    for law in COMPARISONS:
        obey(law, subject.entry)


TAKES_ONE_MASK = [entry for entry in REGISTRY if {spec.mask for spec in entry.inputs} == {0}]


@pytest.mark.sampled(31)
@pytest.mark.parametrize("entry", TAKES_ONE_MASK[::3], ids=str)
def test_the_check_passes(entry):
    moves = {"any": ("left", "holes"), "contiguous": ("left",), "right": ()}[entry.mask_class]
    report = checked(entry, moves)
    assert report.ok, str(report)


@pytest.mark.sampled(7)
@pytest.mark.parametrize("subject", RIGHT, ids=str)
def test_the_check_passes_plain_functions(subject):
    moves = ("left", "holes") if subject.entry.mask_class == "any" else ("left",)
    report = checked(subject.entry, moves)
    assert report.ok, str(report)


def test_there_are_enough():
    assert len(WRONG) >= 40
    assert len(RIGHT) + len(TAKES_ONE_MASK[::6]) >= 40
