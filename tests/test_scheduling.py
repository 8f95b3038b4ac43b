"""What cannot be seen from outside the engine: its schedule, its buffers and its kernel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmask.recurrent import Choice
from jaxmask.recurrent._engine import pallas
from jaxmask.recurrent._engine.buffers import gates_begin, layout_for
from jaxmask.recurrent._engine.scheduling import all_rounds, schedule, units_for


@functools.partial(jax.jit, static_argnums=0)
def plan_of(choice, real):
    plan = schedule(choice, real)
    return plan, all_rounds(choice, plan)


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(0, 12), min_size=9, max_size=9))
def test_every_chunk_runs_once_and_in_order(lengths):
    choice = Choice("tiled", (2, 4, 9), 3)
    real = np.arange(12) < np.array(lengths)[:, None]
    order, rounds = jax.device_get(plan_of(choice, real[None]))
    units, begins, counts, used = rounds.units, rounds.begins, rounds.counts, rounds.used
    which = int(order.which[0])
    slots = choice.slots[which]
    assert [int(n) > 0 for n in counts] == [any(lengths) and i == which for i in range(3)]
    seen = {}
    for begin in begins[which][: int(counts[which])]:
        for unit in range(begin, begin + slots):
            row, is_first, left = (int(a[unit]) for a in units[:3])
            if left:
                seen.setdefault(row, []).append((left, unit))
                assert is_first == (left == lengths[row])
                steps = row * 12 + lengths[row] - left + np.arange(min(left, 3))
                np.testing.assert_array_equal(units.source[unit, : len(steps)], steps)
    for row, length in enumerate(lengths):
        first, chunks = int(order.first[0, row]), range(-(-length // 3))
        assert seen.get(row, []) == [(length - 3 * c, first + c * slots) for c in chunks]
    assert int(units.left[0]) == 0
    assert int(used[0]) == 1 + slots * int(order.rounds[0])


gates_begin_at = jax.jit(gates_begin, static_argnums=(0, 3))


@pytest.mark.parametrize("states", [1, 2])
@pytest.mark.parametrize("member", [0, 2])
def test_no_gates_stand_where_something_else_does(states, member):
    choice = Choice("tiled", (2, 5, 12), 4)
    layout = layout_for(choice, units_for(choice, batch=12, time=40), states, gates=4)
    for slots in choice.slots[:-1]:
        for rounds in range(1, (layout.states - 1) // slots + 1):
            taken = np.zeros(layout.units, int)
            taken[: 1 + rounds * slots] += 1
            kept, size = [], slots * layout.gates
            for number in range(rounds):
                begin = member * layout.states + 1 + number * slots
                start, fits = gates_begin_at(layout, member, begin, slots, 1 + rounds * slots)
                start = int(start) - member * layout.units
                kept.append(bool(fits))
                taken[start : start + size] += fits
                assert fits or start == layout.units - size  # all in one place
            taken[layout.units - size :] += not all(kept)
            assert taken.max() == 1
            assert kept == sorted(kept, reverse=True)
            # All, where as many steps are real as the smaller numbers of slots are chosen for.
            assert all(kept) or rounds * slots > (layout.states - 1) * (
                0.37 if states == 2 else 0.2
            )


def test_rows_that_do_not_fit_evenly_all_step_at_once():
    """49 rows of one length in 24 slots would take three rounds, and more units than there are."""
    choice, time = Choice("tiled", (8, 24, 64), 4), 40
    for rows, slots in ((48, 24), (49, 64)):
        real = jnp.broadcast_to(jnp.arange(64)[:, None] < rows, (64, time))
        order = schedule(choice, real[None])
        assert choice.slots[int(order.which[0])] == slots
        positions = np.asarray(order.positions[0])[:rows]
        assert len(np.unique(positions)) == positions.size
        assert positions.max() < 4 * units_for(choice, 64, time)


def test_members_choose_their_own_number_of_slots():
    """One member by itself, one in three slots, and one with all rows at once."""
    lengths = [11, 0, 0, 0, 0, 0, 0], [11, 9, 3, 2, 1, 0, 0], [11] * 7
    real = jnp.arange(11) < jnp.array(lengths)[..., None]
    order = schedule(Choice("tiled", slots=(1, 3, 7), steps=4), real)
    assert order.which.tolist() == [0, 1, 2]


def test_the_kernel_computes_no_chunk_that_no_row_needs():
    def step(weights, state, x):
        return (state[0] + x @ weights,), state[0] + 1

    steps = 8
    time = 3 * steps
    needed = np.ones((time, 2), bool)
    needed[steps : 2 * steps] = False
    x = np.where(needed[..., None], 1.0, np.nan).astype(np.float32)
    ends, out = pallas.scan(
        step, jnp.ones((1, 1)), (jnp.zeros((2, 1)),), x, jnp.asarray(needed), rows=2, steps=steps
    )
    np.testing.assert_array_equal(ends[0], [[2.0 * steps]] * 2)
    expected = np.where(needed[:, 0], np.cumsum(needed[:, 0]), 0)
    np.testing.assert_array_equal(out[:, 0, 0], expected)
