"""A token that no step could score, as where a cache is full, is an error or -1, never a guess."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from jaxmask import attention, decoding

CLASSES, SIZE, LIMIT = 5, 4, 4
rng = np.random.default_rng(0)
TABLE, OUT = rng.normal(size=(CLASSES, SIZE)), 3 * rng.normal(size=(SIZE, CLASSES))
OUT[:, 0] = 0  # no row ends by itself
START, ROWS = np.array([1, 2, 3]), np.array([True, True, False])
PROMPTS = (
    np.array([[4, 3, 1], [0, 0, 2], [0, 0, 0]]),
    np.array([[1, 1, 1], [0, 0, 1], [0] * 3], bool),
)


def chunk(cache, ids, mask, window=None):
    x = jnp.asarray(TABLE, jnp.float32)[ids][:, :, None]
    cache, (y, _) = attention.attend_cached(cache, x, x, x, mask, window=window)
    return cache, y[:, :, 0] @ jnp.asarray(OUT, jnp.float32)


def step(cache, ids, window=None):
    cache, logits = chunk(cache, ids[:, None], None, window)
    return cache, logits[:, 0].at[:, 0].set(-9)


def prompted(slots, window=None):
    cache = attention.empty_cache(3, slots, kv_heads=1, head_features=SIZE)
    return chunk(cache, *PROMPTS, window)[0]


def searched(search, step=step, **options):
    options = {"max_length": LIMIT, "end_id": 0} | options
    noise = (jax.random.key(0),) if search is decoding.sample else ()
    return lambda cache: search(step, cache, START, ROWS, *noise, **options)


SEARCHES = pytest.mark.parametrize("search", [decoding.greedy, decoding.sample, decoding.beam])


@SEARCHES
def test_a_token_past_the_cache_is_marked(search):
    """Row 0 has a prompt of 3, so a cache of 5 slots has room for 2 more, and row 1 for 4."""
    run = jax.jit(searched(search))
    ids, mask = map(np.asarray, run(prompted(5)))
    whole, _ = map(np.asarray, run(prompted(7)))
    assert (whole[:2] > 0).all()
    np.testing.assert_array_equal(ids[1], whole[1])
    assert ids[0, 2:].tolist() == [-1, 0]
    assert mask.tolist() == [[True] * 3 + [False], [True] * 4, [False] * 4]
    if search is not decoding.beam:  # which would have gone on with another hypothesis
        np.testing.assert_array_equal(ids[0, :2], whole[0, :2])


@SEARCHES
def test_it_is_an_error_where_values_are_known(search):
    with pytest.raises(ValueError, match=rf"{search.__name__}: row 0 .* attention cache was full"):
        searched(search)(prompted(5))
    # A prompt that did not fit is one too, before the first token.
    ids, _ = jax.jit(searched(search, max_length=1))(prompted(2))
    assert ids[0].tolist() == [-1]


def test_a_row_that_ends_in_time_needs_no_room():
    def ends(cache, ids):
        cache, logits = step(cache, ids)
        return cache, logits.at[0, 0].set(jnp.where(cache.length[0] == 5, 99, -99))

    ids, mask = searched(decoding.greedy, ends)(prompted(5))
    assert mask.sum(1).tolist() == [1, 4, 0]
    assert (np.asarray(ids) >= 0).all()


@SEARCHES
def test_a_cache_that_cannot_hold_the_search_is_refused_when_traced(search):
    name = rf"{search.__name__}: `max_length` is 4, and the cache of attend_cached has 3 slots"
    with pytest.raises(ValueError, match=name):
        jax.eval_shape(searched(search), prompted(3))
    # A window forgets, and needs no more slots than itself.
    forgetful = functools.partial(step, window=2)
    ids, _ = searched(search, forgetful)(prompted(2, window=2))
    assert (np.asarray(ids)[:2] > 0).all()


def test_a_mask_beside_the_logits_says_which_are_known():
    """Learned positions have a table of a fixed size, which only their mask tells of."""
    rngs = nnx.Rngs(0)
    lm = jm.nn.Sequential(
        jm.nn.Embed(CLASSES, SIZE, rngs=rngs),
        jm.nn.LearnedPositions(LIMIT, SIZE, rngs=rngs),
        nnx.Linear(SIZE, CLASSES, bias_init=nnx.initializers.constant(3.0), rngs=rngs),
    )

    def next_token(carry, ids):
        carry, (logits, mask) = lm.run(carry, ids[:, None])
        return carry, (logits[:, 0].at[:, 0].set(-9), mask[:, 0])

    carry = jax.tree.map(lambda n: n + jnp.array([3, 0, 0]), lm.initial_carry(3))
    ids, mask = jax.jit(searched(decoding.greedy, next_token))(carry)
    assert ids[0, 1:].tolist() == [-1, 0, 0]
    assert mask.sum(1).tolist() == [2, 4, 0]
    with pytest.raises(ValueError, match="row 0 has a token that could not be scored"):
        searched(decoding.greedy, next_token)(carry)
    with pytest.raises(ValueError, match="the table of LearnedPositions has 4 positions"):
        jax.eval_shape(searched(decoding.greedy, next_token, max_length=5), carry)
    with pytest.raises(ValueError, match=r"mask of function `.*` must be \[batch\] = \(3,\)"):
        searched(decoding.greedy, lambda c, i: (c, (jnp.zeros((3, 5)), jnp.ones((3, 5), bool))))(())


def test_the_score_of_a_token_past_the_cache_is_nan():
    ids, mask = np.array([[1, 2, 3, 4]] * 3), np.array([[1, 1, 1, 0], [1] * 4, [0] * 4], bool)
    score = functools.partial(decoding.score, step, start=START, row_mask=ROWS, ids=ids, mask=mask)
    y, _ = jax.jit(score)(prompted(5))
    whole, _ = jax.jit(score)(prompted(7))
    assert np.isnan(y).tolist() == [[False, False, True, False], [False] * 4, [False] * 4]
    np.testing.assert_array_equal(np.asarray(y)[~np.isnan(y)], np.asarray(whole)[~np.isnan(y)])
    with pytest.raises(ValueError, match="score: row 0"):
        score(prompted(5))


def test_labels_past_the_cache_of_a_scorer_are_marked():
    logits = 9 * jax.nn.one_hot(jnp.array([[1, 2, 1, 2]] * 3), CLASSES)
    real = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [0] * 4], bool)

    def run(cache):
        options = {"beam_size": 2, "n_best": 1, "scorer": step, "start": START}
        return decoding.ctc_beam(logits, real, carry=cache, **options)

    (ids, mask), (scores, found) = jax.jit(run)(prompted(5))
    (whole, _), (best, _) = jax.jit(run)(prompted(7))
    assert ids[:2, 0].tolist() == [[*whole[0, 0, :2].tolist(), -1, -1], whole[1, 0].tolist()]
    assert found[:2].all()
    assert np.isnan(scores).ravel().tolist() == [True, False, False]
    assert scores[1] == best[1]
    assert mask[0].sum() == 4
    with pytest.raises(ValueError, match="ctc_beam: row 0"):
        run(prompted(5))
