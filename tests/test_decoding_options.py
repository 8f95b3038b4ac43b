"""Limits, several hypotheses, drawing, scores: against every sequence of a small vocabulary."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from jaxmask import decoding
from tests.test_decoding import (
    CLASSES,
    END,
    MASK,
    OUT,
    frames,
    inputs,
    log_p_of,
    probabilities,
    said,
    step,
)

LIMIT = 4
PREFIX = np.array([[0, 0], [3, 2], [9, 9], [2, 0], [0, 3], [1, 2]], np.int32)
PREFIX_MASK = np.array([[0, 0], [1, 1], [1, 1], [1, 0], [0, 1], [0, 0]], bool)


def allowed(ids, prefix=(), min_length=0, no_repeat_ngram_size=0):
    """The tokens that may follow, by the words of the docstring."""
    if len(ids) < len(prefix):
        return [prefix[len(ids)]]
    n = no_repeat_ngram_size
    seen = {ids[i : i + n] for i in range(len(ids) - n + 1)} if n else set()
    others = [
        token
        for token in range(CLASSES)
        if token != END and not (n and (*ids, token)[len(ids) + 1 - n :] in seen)
    ]
    return others + ([END] if len(ids) >= min_length or not others else [])


def every_sequence(state, limit, **limits):
    """`{tokens, with the end: log probability}` of one row."""
    found = {}

    def grow(ids, log_p, state):
        if len(ids) == limit or (ids and ids[-1] == END):
            found[ids] = log_p
            return
        state, q = log_p_of(state, ids[-1] if ids else 0)
        for token in allowed(ids, **limits):
            grow((*ids, token), log_p + q[token], state)

    grow((), 0.0, state)
    return found


def norm(length, length_penalty=0.0, length_norm="gnmt"):
    return ((5 + length) / 6 if length_norm == "gnmt" else length) ** length_penalty


SEARCHES = [
    {"length_penalty": 0.6},
    {"length_penalty": 1.0, "length_norm": "power", "min_length": 2},
    {"no_repeat_ngram_size": 2, "prefix": True},
    {"no_repeat_ngram_size": 1, "min_length": 4, "prefix": True},
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_a_wide_beam_holds_the_best_of_all_sequences(options):
    options = dict(options)
    norms = {k: options[k] for k in ("length_penalty", "length_norm") if k in options}
    limits = {k: options[k] for k in options if k not in norms and k != "prefix"}
    forced = options.pop("prefix", False)
    run = functools.partial(
        *(decoding.beam, step),
        max_length=LIMIT,
        end_id=END,
        beam_size=130,
        n_best=6,
        **options,
        prefix=(PREFIX, PREFIX_MASK) if forced else None,
    )
    carry, start, row_mask = inputs(3)
    (ids, mask), (scores, found) = jax.jit(run)(carry, start, row_mask)
    assert not np.asarray(ids)[~np.asarray(mask)].any()
    for row, real in enumerate(row_mask):
        if not real:
            assert not np.asarray(mask[row]).any()
            assert not np.asarray(found[row]).any()
            assert not np.asarray(scores[row]).any()
            continue
        prefix = tuple(PREFIX[row][PREFIX_MASK[row]].tolist()) if forced else ()
        table = every_sequence(np.asarray(carry["state"])[row], LIMIT, prefix=prefix, **limits)
        table = {y: log_p / norm(len(y), **norms) for y, log_p in table.items()}
        best = sorted(table, key=table.get, reverse=True)[:6]
        assert np.asarray(found[row]).sum() == len(best)
        for i, y in enumerate(best):
            assert np.asarray(ids[row, i])[mask[row, i]].tolist() == [t for t in y if t != END]
            np.testing.assert_allclose(scores[row, i], table[y], rtol=1e-5)


def test_one_best_is_the_first_of_several():
    carry, start, row_mask = inputs(1)
    run = functools.partial(
        *(decoding.beam, step, carry, start, row_mask), max_length=LIMIT, end_id=END, beam_size=3
    )
    (ids, mask), (scores, found) = run(n_best=3)
    jax.tree.map(np.testing.assert_array_equal, run(), (ids[:, 0], mask[:, 0]))
    assert (np.diff(scores[np.asarray(found).all(1)], axis=1) <= 0).all()


@pytest.mark.parametrize("options", [{"no_repeat_ngram_size": 1, "min_length": 4}, {}], ids=str)
def test_greedy_within_limits(options):
    carry, start, row_mask = inputs(2)
    ids, mask = decoding.greedy(
        *(step, carry, start, row_mask),
        **{"max_length": LIMIT, "end_id": END, "prefix": (PREFIX, PREFIX_MASK)} | options,
    )
    found = said(ids, mask)
    for row in np.flatnonzero(row_mask):
        state, y = np.asarray(carry["state"])[row], ()
        while len(y) < LIMIT and y[-1:] != (END,):
            state, q = log_p_of(state, y[-1] if y else 0)
            prefix = tuple(PREFIX[row][PREFIX_MASK[row]].tolist())
            y = (*y, max(allowed(y, prefix, **options), key=lambda token: q[token]))
        assert found[row] == [t for t in y if t != END]
    assert found[2] == []


def shares(log_p, temperature=1.0, top_k=None, top_p=1.0):
    """The distribution that is drawn from, by sorting."""
    p = np.exp(np.asarray(log_p, float) / temperature)
    order = np.argsort(-p, kind="stable")[:top_k]
    p = p / p[order].sum()
    kept, total = [], 0.0
    for token in order:
        if total < top_p:
            kept.append(token)
        total += p[token]
    out = np.zeros_like(p)
    out[kept] = p[kept] / p[kept].sum()
    return out


TABLE = np.log(
    np.array([[0.1, 0.05, 0.4, 0.45], [0.97, 0.01, 0.01, 0.01], [0.3, 0.2, 0.4, 0.1], [0.25] * 4])
)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5, "top_k": 3}, {"top_p": 0.8}, {"top_k": 3, "top_p": 0.7}]
)
def test_samples_have_the_probabilities_of_their_distribution(options):
    rows = 4000
    draw = functools.partial(
        *(decoding.sample, lambda carry, ids: (carry, jnp.asarray(TABLE, jnp.float32)[ids]), ()),
        **{"max_length": 2, "end_id": END} | options,
    )
    ids, mask = jax.jit(draw)(np.zeros(rows, np.int32), None, jax.random.key(1))
    tokens = np.where(np.asarray(mask), ids, END)
    first = shares(TABLE[0], **options)
    counts = np.bincount(tokens[:, 0], minlength=CLASSES)
    np.testing.assert_allclose(counts / rows, first, atol=5 * np.sqrt(0.25 / rows))
    assert not counts[first == 0].any()
    for token in (0, 2, 3):
        after = tokens[tokens[:, 0] == token, 1]
        if len(after):
            p = shares(TABLE[token], **options)
            counts = np.bincount(after, minlength=CLASSES)
            np.testing.assert_allclose(counts / len(after), p, atol=2.5 / np.sqrt(len(after)))
            assert not counts[p == 0].any()


def test_samples_belong_to_their_row_ids_and_obey_limits():
    carry, start, row_mask = inputs(4)
    draw = functools.partial(
        *(decoding.sample, step),
        **{"max_length": LIMIT, "end_id": END, "min_length": LIMIT, "no_repeat_ngram_size": 2},
    )
    draw = jax.jit(draw)
    key = jax.random.key(0)
    ids, mask = draw(carry, start, row_mask, key, row_ids=np.arange(6))
    assert jm.masks.lengths(mask).tolist() == [LIMIT * int(real) for real in row_mask]
    for row in said(ids, mask):
        pairs = list(itertools.pairwise(row))
        assert len(set(pairs)) == len(pairs)
    order = np.array([3, 1, 2, 0, 5, 4])
    moved = {"state": carry["state"][order], "time": carry["time"]}
    again, _ = draw(moved, start[order], row_mask[order], key, row_ids=order)
    np.testing.assert_array_equal(again, ids[order])
    other, _ = draw(carry, start, row_mask, jax.random.key(1), row_ids=np.arange(6))
    assert (np.asarray(other) != ids).any()


def test_scores_are_those_of_the_beam_and_of_every_token():
    carry, start, row_mask = inputs(5)
    ids = np.array([[0, 2, 3], [3, 1, 9], [0, 0, 0], [9, 2, 2], [0, 9, 1], [9, 9, 9]], np.int32)
    mask = ids != 9
    y, at = jax.jit(functools.partial(decoding.score, step))(carry, start, row_mask, ids, mask)
    np.testing.assert_array_equal(at, mask & row_mask[:, None])
    for row in np.flatnonzero(row_mask):
        state, before = np.asarray(carry["state"])[row], 0
        for t in np.flatnonzero(mask[row]):
            state, q = log_p_of(state, before)
            before = ids[row, t]
            np.testing.assert_allclose(y[row, t], q[before], rtol=1e-5, atol=1e-6)
    assert not np.asarray(y)[~np.asarray(at)].any()


def test_an_id_that_is_no_class_is_refused_or_nan():
    carry, start, _ = inputs(5)
    carry, start = jax.tree.map(lambda x: x[:2] if x.ndim else x, carry), start[:2]
    ids = np.array([[0, 2], [4, 0]], np.int32)
    with pytest.raises(ValueError, match=r"score: `ids` must lie in 0\.\.3"):
        decoding.score(step, carry, start, None, ids, None)
    y, _ = jax.jit(lambda ids: decoding.score(step, carry, start, None, ids, None))(ids)
    assert np.isnan(y).tolist() == [[False, False], [True, False]]
    run = functools.partial(decoding.greedy, step, carry, start, None, max_length=3, end_id=END)
    with pytest.raises(ValueError, match=r"greedy: `prefix` must lie in 0\.\.3"):
        run(prefix=(ids, None))
    found = said(*jax.jit(lambda ids: run(prefix=(ids, None)))(ids))
    assert found[0][:2] == [0, 2]
    assert found[1] == []


# ------------------------------------------------------------------------------- CTC


@pytest.mark.parametrize("fused", [False, True])
def test_a_wide_ctc_beam_holds_the_best_labels_and_their_scores(fused):
    classes, blank = 3, 1
    bigrams = np.random.default_rng(8).normal(size=(classes, classes)).astype(np.float32)

    def scorer(count, ids):  # counts its labels, to see that the carry is held
        return count + 1, (1 + 0.5 * count[:, None]) * jnp.asarray(bigrams)[ids]

    zeros = jnp.zeros(len(MASK), jnp.int32)
    lm = {"scorer": scorer, "carry": zeros, "start": zeros} if fused else {}
    run = functools.partial(decoding.ctc_beam, beam_size=40, n_best=40, blank_id=blank, **lm)
    logits = frames(2)
    (ids, mask), (scores, found) = jax.jit(run)(logits, MASK)
    for row, real in enumerate(MASK):
        table = probabilities(logits[row][real].astype(np.float64), blank) if real.any() else {}
        table = {labels: np.log(p) for labels, p in table.items()}
        if fused:
            for labels in table:
                pairs = zip((0, *labels), labels, strict=False)
                table[labels] += sum((1 + 0.5 * i) * bigrams[p] for i, p in enumerate(pairs))
        best = sorted(table, key=table.get, reverse=True)
        assert np.asarray(found[row]).sum() == len(best)
        for i, labels in enumerate(best):
            assert tuple(np.asarray(ids[row, i])[mask[row, i]].tolist()) == labels
            np.testing.assert_allclose(scores[row, i], table[labels], rtol=1e-5, atol=1e-5)
    if not fused:
        labels, present = ids[:2, 0], mask[:2, 0]
        loss, _ = jm.losses.ctc_loss(logits[:2], MASK[:2], labels, present, blank_id=blank)
        np.testing.assert_allclose(scores[:2, 0], -loss, rtol=1e-5)


def best_alignment(steps, labels, blank):
    """Of all paths, by brute force: the best that spells the labels."""
    log_p = steps - np.log(np.exp(steps).sum(-1, keepdims=True))
    found = {}
    for path in itertools.product(range(steps.shape[1]), repeat=len(steps)):
        merged = [(k, len(list(run))) for k, run in itertools.groupby(path)]
        if tuple(k for k, _ in merged if k != blank) == labels:
            ends = np.cumsum([n for _, n in merged])
            spans = [[end - n, end] for (k, n), end in zip(merged, ends, strict=True) if k != blank]
            found[path] = sum(log_p[t, k] for t, k in enumerate(path)), spans
    return max(found.items(), key=lambda item: item[1][0], default=None)


ALIGN_MASK = np.array([[1] * 5, [0, 0, 1, 1, 1], [1, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0] * 5], bool)


@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_alignments_are_the_best_of_all_paths(blank):
    a, b = (1, 2) if blank == 0 else (0, 1)
    labels = np.array([[a, a, 7], [7, a, b], [b, 7, 7], [a, b, 7], [a, 7, 7]], np.int32)
    align = jax.jit(functools.partial(decoding.ctc_align, blank_id=blank))
    for seed in range(4):
        logits = frames(seed, 3, ALIGN_MASK)
        (ids, mask), (spans, at), (score, rows) = align(logits, ALIGN_MASK, labels, labels != 7)
        assert rows.tolist() == [True] * 4 + [False]
        assert np.isneginf(score).tolist() == [False] * 3 + [True, False]
        assert not np.asarray(ids)[~np.asarray(mask)].any()
        assert not np.asarray(spans)[~np.asarray(at)].any()
        assert np.asarray(mask).any(1).tolist() == [True] * 3 + [False] * 2
        for row in range(3):
            real, given = ALIGN_MASK[row], labels[row] != 7
            path, (log_p, where) = best_alignment(
                logits[row][real].astype(float), tuple(labels[row][given].tolist()), blank
            )
            np.testing.assert_array_equal(mask[row], real)
            np.testing.assert_array_equal(at[row], given)
            assert tuple(np.asarray(ids)[row][real].tolist()) == path
            assert np.asarray(spans)[row][given].tolist() == where
            np.testing.assert_allclose(score[row], log_p, rtol=1e-5)


def test_ctc_alignment_of_no_label_and_of_no_frame():
    logits = np.zeros((2, 3, 2), np.float32)
    none = np.zeros((2, 0), np.int32)
    align = jax.jit(lambda x, labels: decoding.ctc_align(x, None, labels, None))
    (ids, mask), (spans, _), (score, _) = align(logits, none)
    assert not np.asarray(ids).any()
    assert np.asarray(mask).all()
    assert spans.shape == (2, 0, 2)
    np.testing.assert_allclose(score, 3 * np.log(0.5), rtol=1e-6)
    nothing = align(logits[:, :0], np.ones((2, 1), np.int32))
    assert not any(np.asarray(mask).any() for _, mask in nothing[:2])
    with pytest.raises(ValueError, match=r"ctc_align: `labels` must lie in .* and not be 0"):
        decoding.ctc_align(logits, None, np.zeros((2, 1), np.int32), None)


# ---------------------------------------------------------------------------- refusals


def test_options_that_cannot_be_are_refused():
    carry, start, row_mask = inputs(0)
    beam = functools.partial(decoding.beam, *(step, carry, start, row_mask), end_id=END)
    sample = functools.partial(
        *(decoding.sample, step, carry, start, row_mask, jax.random.key(0)), end_id=END
    )
    with pytest.raises(ValueError, match="beam: `n_best` must be at most `beam_size` = 2, got 3"):
        beam(max_length=3, beam_size=2, n_best=3)
    with pytest.raises(ValueError, match="beam: `length_norm` must be one of 'gnmt', 'power'"):
        beam(max_length=3, length_norm="mean")
    with pytest.raises(ValueError, match=r"beam: `min_length` \(4\) must not exceed"):
        beam(max_length=3, min_length=4)
    with pytest.raises(ValueError, match=r"most `max_length` = 1 tokens, got shape \(6, 2\)"):
        beam(max_length=1, prefix=(PREFIX, PREFIX_MASK))
    with pytest.raises(TypeError, match="the ids of `prefix` must be integers"):
        beam(max_length=3, prefix=(PREFIX.astype(np.float32), PREFIX_MASK))
    with pytest.raises(ValueError, match="sample: `temperature` must be above 0"):
        sample(max_length=3, temperature=0)
    with pytest.raises(ValueError, match="sample: `top_p` must be above 0"):
        sample(max_length=3, top_p=1.5)
    logits = np.zeros((2, 3, 4), np.float32)
    with pytest.raises(ValueError, match="ctc_beam: `scorer` needs `start`"):
        decoding.ctc_beam(logits, None, scorer=step)
    with pytest.raises(ValueError, match="`carry` and `start` belong to a `scorer`"):
        decoding.ctc_beam(logits, None, start=np.zeros(2, np.int32))
    few = functools.partial(decoding.ctc_beam, logits, None, start=np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="classes = 4, got shape"):
        few(scorer=lambda carry, ids: (carry, jnp.zeros((2, 3))))


def test_probabilities_of_given_tokens_train():
    carry, start, row_mask = inputs(0)
    ids = np.full((6, 2), 2, np.int32)

    def loss(out):
        def learned(carry, ids):
            carry, _ = step(carry, ids)
            return carry, carry["state"] @ out

        y, _ = decoding.score(learned, carry, start, row_mask, ids, None)
        return -jnp.sum(y)

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(OUT))
    assert np.isfinite(gradient).all()
    assert loss(OUT - 0.01 * np.asarray(gradient)) < value


def without_one(carry, ids):
    """Log probabilities of four tokens, of which 1 never comes."""
    values = jnp.array([0.0, -jnp.inf, 1.0, 0.5])
    return carry, jnp.broadcast_to(values, (ids.shape[0], 4))


def test_a_prefix_that_the_step_rules_out_is_followed_as_by_greedy():
    start, limits = jnp.array([3]), {"max_length": 3, "end_id": 0}
    limits["prefix"] = (jnp.array([[1]]), None)
    expected, _ = decoding.greedy(without_one, (), start, None, **limits)
    (ids, _), (scores, found) = decoding.beam(without_one, (), start, None, n_best=2, **limits)
    assert expected.tolist() == [[1, 2, 2]] == ids[:, 0].tolist()
    likeliest = jax.nn.log_softmax(jnp.array([0.0, 1.0, 0.5]))[1]
    np.testing.assert_allclose(scores[0, 0], 2 * likeliest, rtol=1e-6)
    assert found.all()


NO = -np.inf
DEAD_ENDS = {
    "after a token": ([[NO, 0, NO], [NO] * 3, [NO] * 3], {}, [1]),
    "at once": ([[NO] * 3] * 3, {}, []),
    "of repeats": ([[NO, 0, -1], [NO, 0, 0], [NO, 0, 0]], {"no_repeat_ngram_size": 1}, [1, 2]),
    "of a prefix": (
        [[NO, 0, NO], [NO] * 3, [NO] * 3],
        {"prefix": (np.array([[1, 2]]), None)},
        [1, 2],
    ),
}


@pytest.mark.parametrize("name", DEAD_ENDS)
def test_a_beam_ends_where_nothing_is_left_as_greedy_does(name):
    table, options, expected = DEAD_ENDS[name]
    options = options | {"max_length": 3, "end_id": 0}
    start, step = np.array([0]), lambda carry, ids: (carry, jnp.asarray(table, jnp.float32)[ids])
    found = [decoding.greedy(step, (), start, None, **options)]
    found += [decoding.beam(step, (), start, None, beam_size=k, **options) for k in (1, 3)]
    (ids, mask), (scores, is_found) = decoding.beam(
        step, (), start, None, beam_size=3, n_best=1, **options
    )
    assert (scores.item(), is_found.item()) == (NO, True)
    for row, real in (*found, (ids[:, 0], mask[:, 0])):
        assert row[0][real[0]].tolist() == expected


def test_a_dead_end_comes_behind_what_ends_by_itself_however_lengths_count():
    """What a long hypothesis with a large norm rules out stays below a short dead end."""
    table = jnp.full((6, 6), NO).at[[2, 3, 4, 5], [3, 4, 5, 0]].set(0)
    table = table.at[0, 1:3].set(jnp.array([0.0, -1.0]))
    (ids, mask), (scores, found) = decoding.beam(
        lambda carry, ids: (carry, table[ids]), (), np.array([0]), None, max_length=6, end_id=0,
        beam_size=2, n_best=2, length_penalty=1.0, length_norm="power",
    )  # fmt: skip
    assert [row[real].tolist() for row, real in zip(ids[0], mask[0], strict=True)] == [
        [2, 3, 4, 5],
        [1],
    ]
    assert found.all()
    np.testing.assert_allclose(scores[0, 0], -np.log1p(np.e) / 5, rtol=1e-6)
    assert scores[0, 1] == NO


@pytest.mark.parametrize("temperature", [None, 1.0, 1e-30])
def test_a_row_ends_where_only_a_token_that_is_banned_is_left(temperature):
    """Though the step rules out the end as well."""

    def step(carry, ids):
        return carry, jnp.full((1, 5), -jnp.inf).at[:, 2].set(0)

    options = {"max_length": 3, "end_id": 4, "no_repeat_ngram_size": 1}
    start = jnp.array([0])
    if temperature is None:
        ids, mask = decoding.greedy(step, (), start, None, **options)
    else:
        noise = jax.random.key(0)
        options |= {"temperature": temperature}
        ids, mask = decoding.sample(step, (), start, None, noise, **options)
    assert ids.tolist() == [[2, 0, 0]]
    assert mask.tolist() == [[True, False, False]]


@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_typed_keys_in_a_carry(search):
    """The noise of a row is that of its own key; an empty row has none."""

    def step(keys, ids):
        keys = jax.vmap(jax.random.fold_in)(keys, ids)
        return keys, jax.vmap(lambda key: jax.random.normal(key, (5,)))(keys)

    run = functools.partial(getattr(decoding, search), step, max_length=3, end_id=0)
    keys, start = jax.random.split(jax.random.key(0), 3), jnp.array([1, 2, 3])
    ids, mask = jax.jit(run)(keys, start, np.array([True, False, True]))
    alone, its_mask = jax.jit(run)(keys[2:], start[2:], None)
    np.testing.assert_array_equal(ids[2:], alone)
    np.testing.assert_array_equal(mask[2:], its_mask)
    assert not np.asarray(mask)[1].any()


def test_several_paths_with_wide_integers():
    with jax.enable_x64(True):
        (tags, _), _ = decoding.viterbi(
            jnp.zeros((1, 3, 2), jnp.float32), None, jnp.eye(2), n_best=2
        )
    assert tags[0].tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("search", [decoding.greedy, decoding.beam])
def test_searches_export_with_a_symbolic_batch(search):
    (batch,) = jax.export.symbolic_shape("batch")

    def run(start, carry, prefix):
        more = {"max_length": 3, "end_id": 0, "no_repeat_ngram_size": 2}
        return search(without_one, carry, start, None, prefix=(prefix, None), **more)

    shapes = [((batch,), jnp.int32), ((batch, 2), jnp.float32), ((batch, 1), jnp.int32)]
    exported = jax.export.export(jax.jit(run))(*(jax.ShapeDtypeStruct(*s) for s in shapes))
    given = jnp.array([3, 3]), jnp.zeros((2, 2)), jnp.array([[2], [3]])
    assert exported.call(*given)[0].tolist() == run(*given)[0].tolist()


def test_scores_with_the_end_are_a_distribution_and_those_of_a_wide_beam():
    carry, start, row_mask = inputs(3)
    options = {"max_length": 2, "end_id": END, "beam_size": 20, "n_best": 13}
    (ids, mask), (scores, found) = jax.jit(functools.partial(decoding.beam, step, **options))(
        carry, start, row_mask
    )
    # 1 + 3 + 9 rows of three tokens beside the end.
    score = jax.jit(functools.partial(decoding.score, step, end_id=END))
    for i in range(13):
        total, _ = jm.pool.sum(*score(carry, start, row_mask, ids[:, i], mask[:, i]))
        np.testing.assert_allclose(total, scores[:, i], rtol=1e-5)
    assert np.asarray(found).sum(1).tolist() == [13 * real for real in row_mask]
    total = np.exp(scores).sum(1)[row_mask]
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_the_end_comes_after_padding_anywhere():
    table = np.log(np.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]], np.float32))
    run = functools.partial(decoding.score, lambda c, i: (c, jnp.asarray(table)[i]), ())
    ids = np.array([[2, 1], [2, 9], [9, 2], [9, 9], [9, 9]], np.int32)
    row_mask = np.array([1, 1, 1, 1, 0], bool)
    y, mask = run(np.zeros(5, np.int32), row_mask, ids, ids != 9, end_id=0)
    np.testing.assert_array_equal(mask[:, -1], [False, True, True, True, False])
    want = [[0.4, 0.05, 1], [0.4, 1, 0.9], [1, 0.4, 0.9], [1, 1, 0.1], [1, 1, 1]]
    np.testing.assert_allclose(np.exp(y), want, rtol=1e-5)
    y, mask = run(np.zeros(1, np.int32), None, ids[:1], None, end_id=0)
    assert mask.tolist() == [[True, True, False]]
    with pytest.raises(ValueError, match=r"score: `ids` must lie in 0\.\.2 and not be 0, the end,"):
        run(np.zeros(1, np.int32), None, np.array([[2, 0]]), None, end_id=0)
    with pytest.raises(ValueError, match="score: `end_id` must be below the 3 classes"):
        run(np.zeros(1, np.int32), None, ids[:1], None, end_id=3)


def test_a_policy_gradient_with_the_end_is_that_of_the_expected_reward():
    """E[reward * d log p], over all rows of at most two tokens."""
    ids = np.array([[9, 9], [1, 9], [2, 9], *itertools.product([1, 2], repeat=2)], np.int32)
    reward = np.array([3.0, -1.0, 0.5, 2.0, 0.0, 1.0, -2.0], np.float32)

    def log_p(w):
        y = decoding.score(
            *(lambda c, i: (c, w[i]), (), np.zeros(7, np.int32), None, ids, ids != 9), end_id=0
        )
        return jm.pool.sum(*y)[0]

    def expected(w):  # by hand
        p = jax.nn.softmax(w, axis=1)
        first, second = p[0], p[1:]
        steps = [first[0], first[1] * second[0, 0], first[2] * second[1, 0]]
        steps += [first[a] * second[a - 1, b] for a, b in itertools.product([1, 2], repeat=2)]
        return jnp.dot(jnp.stack(steps), reward)

    w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)), jnp.float32)
    p = jnp.exp(log_p(w))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-5)
    estimate = jax.grad(lambda w: jnp.dot(p * reward, log_p(w)))(w)
    np.testing.assert_allclose(estimate, jax.grad(expected)(w), rtol=1e-4, atol=1e-6)
