"""Decoding against plain Python, row by row."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from jaxmask import decoding

# One row each: full, padded left, with holes, one step, empty.
MASK = np.array([[1, 1, 1, 1], [0, 0, 1, 1], [1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]], bool)


def frames(seed, classes=3, mask=MASK):
    logits = 2 * np.random.default_rng(seed).normal(size=(*mask.shape, classes))
    return np.where(mask[..., None], logits, np.nan).astype(np.float32)


def said(ids, mask):
    ids, mask = np.asarray(ids), np.asarray(mask)
    assert not ids[~mask].any()
    assert np.asarray(jm.masks.is_right_padded(mask)).all()
    return [ids[row][mask[row]].tolist() for row in range(len(ids))]


def spelled(path, blank):
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


# ------------------------------------------------------------------------------- CTC


@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_greedy_is_groupby_of_the_real_frames(blank):
    for seed in range(10):
        logits = frames(seed)
        found = said(
            *jax.jit(decoding.ctc_greedy, static_argnames="blank_id")(logits, MASK, blank_id=blank)
        )
        for row, real in enumerate(MASK):
            path = logits[row][real].argmax(-1).tolist()
            assert found[row] == list(spelled(path, blank))


def probabilities(steps, blank):
    """Of every row of labels, by all alignments."""
    log_p = steps - np.log(np.exp(steps).sum(-1, keepdims=True))
    table = {}
    for path in itertools.product(range(steps.shape[1]), repeat=len(steps)):
        p = math.exp(sum(log_p[t, label] for t, label in enumerate(path)))
        labels = spelled(path, blank)
        table[labels] = table.get(labels, 0.0) + p
    return table


@pytest.mark.parametrize("blank", [0, 2])
def test_a_wide_ctc_beam_finds_the_likeliest_labels_of_all(blank):
    run = jax.jit(decoding.ctc_beam, static_argnames=("beam_size", "blank_id"))
    differs = 0
    for seed in range(8):
        logits = frames(seed) / 2
        found = said(*run(logits, MASK, beam_size=40, blank_id=blank))
        for row, real in enumerate(MASK):
            table = probabilities(logits[row][real].astype(np.float64), blank)
            assert tuple(found[row]) == max(table, key=table.get)
            differs += found[row] != list(spelled(logits[row][real].argmax(-1), blank))
    assert differs  # else the best path would pass too


def by_prefixes(steps, size, blank):
    """Prefix beam search in a dictionary."""
    p = np.exp(steps - np.log(np.exp(steps).sum(-1, keepdims=True)))
    beam = {(): (1.0, 0.0)}
    for frame in p:
        after = {}
        for prefix, (ends_blank, ends_label) in beam.items():
            for label, q in enumerate(frame):
                if label == blank:
                    grown = [(prefix, (ends_blank + ends_label) * q, 0.0)]
                elif prefix and label == prefix[-1]:
                    grown = [(prefix, 0.0, ends_label * q)]
                    grown.append(((*prefix, label), 0.0, ends_blank * q))
                else:
                    grown = [((*prefix, label), 0.0, (ends_blank + ends_label) * q)]
                for key, a, b in grown:
                    old = after.get(key, (0.0, 0.0))
                    after[key] = (old[0] + a, old[1] + b)
        beam = dict(sorted(after.items(), key=lambda item: -sum(item[1]))[:size])
    return max(beam, key=lambda key: sum(beam[key]))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_narrow_ctc_beam_is_the_search_in_a_dictionary(size):
    mask = np.arange(9) < np.array([9, 6, 8])[:, None]
    for seed in range(5):
        logits = frames(seed, 4, mask)
        found = said(*jax.jit(functools.partial(decoding.ctc_beam, beam_size=size))(logits, mask))
        for row, real in enumerate(mask):
            assert tuple(found[row]) == by_prefixes(logits[row][real].astype(float), size, 0)


def test_ctc_decodes_the_sequences_of_a_packed_row_one_by_one():
    ids = np.array([[1, 1, 1, 2, 2, 2, 0], [0, 2, 2, 2, 2, 0, 0]], np.int32)
    logits = frames(3, 3, ids > 0)
    for decode in (decoding.ctc_greedy, jax.jit(decoding.ctc_beam)):
        y, segments = decode(logits, jm.Segments(jnp.asarray(ids), 2))
        for row, number in itertools.product(range(2), (1, 2)):
            alone = said(*decode(logits[row][ids[row] == number][None], None))[0]
            assert np.asarray(y)[row][np.asarray(segments.ids)[row] == number].tolist() == alone


def test_the_best_labels_of_packed_sequences_have_rows_of_their_own():
    ids = np.array([[1, 1, 1, 2, 2, 0], [2, 2, 2, 2, 0, 0]], np.int32)
    logits = frames(3, 3, ids > 0)
    search = jax.jit(functools.partial(decoding.ctc_beam, n_best=2))
    (y, mask), (scores, found) = search(logits, jm.Segments(jnp.asarray(ids), 2))
    for place, (row, number) in enumerate(itertools.product(range(2), (1, 2))):
        own = (ids[row] == number)[None]  # the row without the other sequence
        (want, real), (want_scores, want_found) = search(logits[row][None], own)
        assert said(y[place], mask[place]) == said(want[0], real[0])
        np.testing.assert_array_equal(found[place], want_found[0])
        np.testing.assert_allclose(scores[place], want_scores[0], rtol=1e-6)
    assert found.any(1).tolist() == [True, True, False, True]


def test_ctc_beam_of_no_packed_row():
    for shape in ((0, 3), (2, 0)):
        segments = jm.Segments(np.zeros(shape, np.int32), 2)
        logits = np.ones((*shape, 4), np.float32)
        ids, mask = jm.decoding.ctc_beam(logits, segments)
        assert ids.shape == mask.shape == shape
        (ids, _), (scores, _) = jm.decoding.ctc_beam(logits, segments, n_best=3)
        assert (ids.shape, scores.shape) == ((2 * shape[0], 3, shape[1]), (2 * shape[0], 3))


def test_ctc_without_time_rows_or_beam():
    for shape in ((2, 0, 3), (0, 4, 3)):
        for decode in (decoding.ctc_greedy, decoding.ctc_beam):
            ids, mask = decode(np.zeros(shape, np.float32), np.zeros(shape[:2], bool))
            assert ids.shape == mask.shape == shape[:2]
    x = np.zeros((2, 4, 3), np.float32)
    for decode, name in ((decoding.ctc_greedy, "ctc_greedy"), (decoding.ctc_beam, "ctc_beam")):
        with pytest.raises(ValueError, match=f"{name}: `blank_id` must be one of the 3 classes"):
            decode(x, None, blank_id=3)
        with pytest.raises(ValueError, match=rf"{name}: `logits` must be \[batch, time, classes\]"):
            decode(x[..., 0], None)
    with pytest.raises(ValueError, match="ctc_beam: `beam_size` must be at least 1"):
        decoding.ctc_beam(x, None, beam_size=0)


# ------------------------------------------------------------------------ token by token

CLASSES, END = 4, 1
_rng = np.random.default_rng(6)
EMBEDDING = _rng.normal(size=(CLASSES, 3)).astype(np.float32)
OUT = (2 * _rng.normal(size=(3, CLASSES))).astype(np.float32)


def step(carry, ids):
    """The state of a row, and a count of steps for the whole batch."""
    state = jnp.sin(2 * carry["state"] + jnp.asarray(EMBEDDING)[ids])
    return {"state": state, "time": carry["time"] + 1}, state @ OUT


def inputs(seed, batch=6):
    state = np.random.default_rng(seed).normal(size=(batch, 3)).astype(np.float32)
    row_mask = np.arange(batch) != 2
    state[~row_mask] = np.nan
    start = np.where(row_mask, 0, -100).astype(np.int32)
    return {"state": jnp.asarray(state), "time": jnp.zeros((), jnp.int32)}, start, row_mask


def log_p_of(state, ids):
    """One token of one row: the state after it, and the log probabilities of the next."""
    state = np.sin(2 * state + EMBEDDING[ids])
    logits = (state @ OUT).astype(np.float64)
    return state, logits - np.log(np.exp(logits).sum())


def greedy_alone(state, limit):
    token, ids = 0, []
    while len(ids) < limit:
        state, log_p = log_p_of(state, token)
        token = int(log_p.argmax())
        if token == END:
            break
        ids.append(token)
    return ids


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_greedy_is_each_row_alone(limit):
    run = jax.jit(functools.partial(decoding.greedy, step, max_length=limit, end_id=END))
    lengths = set()
    for seed in range(4):
        carry, start, row_mask = inputs(seed)
        found = said(*run(carry, start, row_mask))
        for row, real in enumerate(row_mask):
            state = np.asarray(carry["state"])[row]
            assert found[row] == (greedy_alone(state, limit) if real else [])
        lengths |= set(map(len, found))
    assert len(lengths) > 2 or limit < 2


def test_the_loop_ends_with_the_last_row():
    seen = []

    def counted(carry, ids):
        jax.debug.callback(lambda: seen.append(1))
        return step(carry, ids)

    carry, start, row_mask = inputs(0)
    found = said(*decoding.greedy(counted, carry, start, row_mask, max_length=50, end_id=END))
    jax.effects_barrier()
    longest = max(map(len, found))
    assert len(seen) == min(longest + 1, 50)
    nothing = np.zeros(6, bool)
    ids, mask = decoding.greedy(step, carry, start, nothing, max_length=5, end_id=END)
    assert not np.asarray(mask).any()
    assert not np.asarray(ids).any()


def beam_alone(state, limit, size, penalty):
    def score(hypothesis):
        ids, log_p, ended, _ = hypothesis
        return log_p / ((5 + len(ids) + ended) / 6) ** penalty

    beam = [((), 0.0, False, state)]
    for _ in range(limit):
        candidates = []
        for ids, log_p, ended, state in beam:
            if ended:
                candidates.append((ids, log_p, ended, state))
                continue
            after, q = log_p_of(state, ids[-1] if ids else 0)
            for token in range(CLASSES):
                new = ids if token == END else (*ids, token)
                candidates.append((new, log_p + q[token], token == END, after))
        beam = sorted(candidates, key=score, reverse=True)[:size]
    return list(max(beam, key=score)[0])


@pytest.mark.parametrize(("size", "penalty"), [(1, 0.0), (2, 0.0), (3, 1.0), (400, 0.6)])
def test_beam_is_the_search_of_each_row_alone(size, penalty):
    options = {"max_length": 4, "end_id": END, "beam_size": size, "length_penalty": penalty}
    run = jax.jit(functools.partial(decoding.beam, step, **options))
    for seed in range(3):
        carry, start, row_mask = inputs(seed)
        found = said(*run(carry, start, row_mask))
        for row, real in enumerate(row_mask):
            state = np.asarray(carry["state"])[row]
            assert found[row] == (beam_alone(state, 4, size, penalty) if real else [])


def test_a_beam_of_one_is_greedy_and_a_wide_one_finds_a_likelier_row():
    carry, start, row_mask = inputs(1)
    options = {"max_length": 6, "end_id": END}
    narrow = decoding.beam(step, carry, start, row_mask, beam_size=1, **options)
    greedy = decoding.greedy(step, carry, start, row_mask, **options)
    jax.tree.map(np.testing.assert_array_equal, narrow, greedy)
    wide = decoding.beam(step, carry, start, row_mask, beam_size=8, **options)
    assert said(*wide) != said(*greedy)


def test_a_step_may_close_over_what_belongs_to_the_rows():
    carry, start, row_mask = inputs(0)
    bias = jnp.asarray(np.random.default_rng(5).normal(size=(6, CLASSES)), jnp.float32)

    def closed(carry, ids):
        carry, logits = step(carry, ids)
        return carry, logits + bias

    def carried(carry, ids):
        inner, logits = step(carry["inner"], ids)
        return {"inner": inner, "bias": carry["bias"]}, logits + carry["bias"]

    options = {"max_length": 4, "end_id": END, "beam_size": 3}
    one = decoding.beam(closed, carry, start, row_mask, **options)
    other = decoding.beam(carried, {"inner": carry, "bias": bias}, start, row_mask, **options)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("decode", [decoding.greedy, decoding.beam])
def test_decoding_refuses_what_it_cannot_read(decode):
    carry, start, row_mask = inputs(0)
    name = decode.__name__
    run = functools.partial(decode, step, max_length=3, end_id=END)
    with pytest.raises(TypeError, match=rf"{name}: `start` must be \[batch\], integer"):
        run(carry, start.astype(np.float32), row_mask)
    with pytest.raises(jm.MaskError, match=f"{name}: `row_mask` must have the shape"):
        run(carry, start, row_mask[:3])
    with pytest.raises(TypeError, match=f"{name}: `row_mask` must be boolean"):
        run(carry, start, row_mask.astype(int))
    with pytest.raises(jm.MaskError, match="Segments"):
        run(carry, start, jm.Segments(np.ones((6, 1), np.int32), 1))
    with pytest.raises(ValueError, match=rf"{name}: arrays of `carry` must be \[batch, ...\]"):
        run({"state": carry["state"][:3], "time": carry["time"]}, start, row_mask)
    with pytest.raises(ValueError, match=f"{name}: `end_id` must be below the .* got 9"):
        decode(step, carry, start, row_mask, max_length=3, end_id=9)
    with pytest.raises(ValueError, match=f"{name}: `max_length` must be at least 0"):
        decode(step, carry, start, row_mask, max_length=-1, end_id=END)
