"""How `ragged_vmap` is called: arguments, lengths, masks, and JAX's transforms around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from tests.ragged.alone import weigh

LENGTHS = (4, 1, 0, 3)


@pytest.fixture
def batch():
    x = np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32)
    mask = np.arange(4) < np.array(LENGTHS)[:, None]
    x[~mask] = np.nan
    return x, mask


def attention(row):
    return jax.nn.softmax(row @ row.T) @ row


def of_rows(f, x, lengths=LENGTHS):
    return [f(x[b, :n]) for b, n in enumerate(lengths) if n]


def assert_equal_rows(y, f, x, lengths=LENGTHS):
    for b, n in enumerate(lengths):
        expected = np.zeros(y.shape[1:], np.float32)
        if n:
            alone = np.asarray(f(x[b, :n]))
            expected[tuple(slice(0, s) for s in alone.shape)] = alone
        np.testing.assert_allclose(y[b], expected, rtol=1e-5, atol=1e-6)


def total(f, x, mask):
    return jnp.sum(jax.vmap(weigh)(jm.ragged_vmap(f)(x, mask)[0]))


def test_jit_is_eager(batch):
    x, mask = batch
    g = jm.ragged_vmap(attention)
    for a, b in zip(g(x, mask), jax.jit(g)(x, mask), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_left_padding_and_holes_are_compacted(batch):
    x, _ = batch
    mask = np.array([[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 1, 1]], bool)
    x = np.where(mask[..., None], np.nan_to_num(x, nan=0.3), np.nan)
    rows = [x[b][mask[b]] for b in range(4)]
    for run in (jm.ragged_vmap(attention), jax.jit(jm.ragged_vmap(attention))):
        y, real = run(x, mask)
        assert real.sum(1).tolist() == mask.sum(1).tolist()
        assert jm.masks.is_right_padded(real).all()
        for b in (0, 1, 3):
            np.testing.assert_allclose(y[b, : len(rows[b])], attention(rows[b]), rtol=1e-5)
    gradient = jax.grad(lambda x: total(attention, x, mask))(x)
    alone = [jax.grad(lambda r: weigh(attention(r)))(row) for row in rows]
    for b in (0, 1, 3):
        np.testing.assert_allclose(gradient[b][mask[b]], alone[b], rtol=1e-4, atol=1e-5)
    assert not np.any(np.asarray(gradient)[~mask])


def test_no_mask_is_vmap(batch):
    x = np.nan_to_num(batch[0])
    y, mask = jm.ragged_vmap(attention)(x, None)
    assert mask is None
    np.testing.assert_allclose(y, jax.vmap(attention)(x), rtol=1e-5, atol=1e-6)
    assert jm.ragged_vmap(lambda row: {"a": row[0]})(x, None)[1] == {"a": None}


def test_masks_of_results(batch):
    x, mask = batch

    def f(row):
        return {
            "steps": row,
            "fewer": row[1:],
            "more": jnp.concatenate([row, row[:1], row]),
            "row": row.sum(0),
            "scores": row @ row.T,
            "features first": row.T,
        }

    y, real = jm.ragged_vmap(f)(x, mask)
    shapes = {name: leaf.shape for name, leaf in real.items()}
    assert shapes == {
        "steps": (4, 4),
        "fewer": (4, 3),
        "more": (4, 9),
        "row": (4,),
        "scores": (4, 4, 4),
        "features first": (4, 3, 4),
    }
    assert real["more"].sum(1).tolist() == [9, 3, 0, 7]
    assert real["fewer"].sum(1).tolist() == [3, 0, 0, 2]
    assert real["row"].tolist() == [True, True, False, True]
    assert y["more"].shape == (4, 9, 3)


def test_rows_below_min_length_are_nothing(batch):
    x, mask = batch
    g = jm.ragged_vmap(lambda row: (row[1:] - row[:-1]).mean(0), min_length=2)
    y, real = g(x, mask)
    assert real.tolist() == [True, False, False, True]
    assert not np.any(np.asarray(y)[1:3])
    gradient = jax.grad(lambda x: jnp.sum(g(x, mask)[0]))(x)
    assert np.all(np.isfinite(gradient))
    assert not np.any(np.asarray(gradient)[1:3])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("time", [0, 1, 3])
def test_a_batch_without_any_real_row(time):
    x, mask = jnp.full((2, time, 3), jnp.nan), jnp.zeros((2, time), bool)
    w = jnp.eye(3)

    def f(row, w):
        row = row @ w
        parts = jax.nn.softmax((row[1:] - row[:-1]) @ w, 0).sum(0)
        return jnp.log(row.std(0) + row.sum(0)) + row / jnp.linalg.norm(row) + parts

    g = jm.ragged_vmap(f, (0, None), min_length=2)
    y, real = g(x, mask, w)
    assert not np.any(y)
    assert not np.any(real)
    slopes = jax.grad(lambda x, mask, w: jnp.sum(g(x, mask, w)[0]), (0, 2))
    for run in (slopes, jax.jit(slopes)):  # the mask is known, and is not
        assert not any(np.any(gradient) for gradient in run(x, mask, w))


def test_no_rows():
    y, real = jm.ragged_vmap(attention)(jnp.zeros((0, 3, 2)), jnp.zeros((0, 3), bool))
    assert y.shape == (0, 3, 2)
    assert real.shape == (0, 3)


def test_row_mapped_and_shared_arguments(batch):
    x, mask = batch
    bias, w = jnp.arange(4.0), {"w": jnp.ones((3, 2)), "name": "static"}

    def f(row, bias, w):
        assert w["name"] == "static"
        return row @ w["w"] + bias

    y, _ = jm.ragged_vmap(f, (0, 0, None))(x, mask, bias, w)
    for b, n in enumerate(LENGTHS):
        np.testing.assert_allclose(y[b, :n], x[b, :n] @ np.ones((3, 2)) + b, rtol=1e-5)
    moved, _ = jm.ragged_vmap(f, (1, 0, None))(x.swapaxes(0, 1), mask, bias, w)
    np.testing.assert_array_equal(moved, y)


def test_pytrees_share_a_length_and_axes_are_pytrees(batch):
    x, mask = batch
    tree = {"a": x, "b": [2 * x[..., 0]], "scale": jnp.float32(3)}
    f = lambda row: row["scale"] * row["a"] * row["b"][0][:, None]  # noqa: E731
    y, _ = jm.ragged_vmap(f, ({"a": 0, "b": [0], "scale": None},))(tree, mask)
    expected = jm.ragged_vmap(lambda row: 6 * row * row[:, :1])(x, mask)[0]
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_one_mask_object_is_one_length(batch):
    x, mask = batch
    y, _ = jm.ragged_vmap(lambda a, b: a + b, (0, 0))(x, mask, (x, mask))
    np.testing.assert_allclose(y, np.where(mask[..., None], 2 * x, 0), rtol=1e-6)
    with pytest.raises(jm.ragged.RaggedTraceError, match="share the mask object"):
        jm.ragged_vmap(lambda a, b: a + b, (0, 0))(x, mask, (x, mask.copy()))


def test_two_lengths(batch):
    x, mask = batch
    z, z_mask = jnp.ones((4, 6, 3)), jnp.arange(6) < jnp.array([6, 2, 5, 0])[:, None]
    f = lambda a, b: (jax.nn.softmax(a @ b.T) @ b, jnp.concatenate([a, b]))  # noqa: E731
    (y, joined), (real, joined_real) = jm.ragged_vmap(f, (0, 0))(x, mask, (z, z_mask))
    assert real.sum(1).tolist() == [4, 1, 0, 0]
    assert joined_real.sum(1).tolist() == [10, 3, 0, 0]
    np.testing.assert_allclose(y[0], np.ones((4, 3)), rtol=1e-5)
    np.testing.assert_allclose(joined[1, :3], np.concatenate([x[1, :1], np.ones((2, 3))]))


@pytest.mark.exhaustive
def test_documents_of_sentences():
    draw = np.random.default_rng(1)
    words = draw.normal(size=(2, 3, 4, 2)).astype(np.float32)
    sentences, lengths = [3, 2], [[4, 1, 2], [3, 4, 0]]
    word_mask = np.arange(4) < np.array(lengths)[..., None]
    sentence_mask = np.arange(3) < np.array(sentences)[:, None]
    words[~word_mask] = np.nan

    def sentence(row):
        return jnp.cumsum(row, 0)[-1] * row.mean(0)

    def document(words, word_mask):
        vectors, real = jm.ragged_vmap(sentence)(words, word_mask)
        return jnp.where(real[:, None], vectors, 0).sum(0) + vectors[-1]

    def f(pair):
        return document(*pair)

    g = jm.ragged_vmap(f)
    y, _ = g((words, word_mask), sentence_mask)

    def alone(words):
        rows = []
        for b, n in enumerate(sentences):
            vectors = [sentence(words[b, k, : lengths[b][k]]) for k in range(n)]
            rows.append(sum(vectors) + vectors[-1])
        return jnp.stack(rows)

    np.testing.assert_allclose(y, alone(words), rtol=1e-5)
    ours = jax.grad(lambda v: weigh(g((v, word_mask), sentence_mask)[0]))(words)
    np.testing.assert_allclose(ours, jax.grad(lambda v: weigh(alone(v)))(words), rtol=1e-4)


# ----------------------------------------------------------------- transforms around it


@pytest.mark.exhaustive
def test_second_derivatives(batch):
    x, mask = batch
    hessian = jax.hessian(lambda x: total(attention, x, mask))(x)
    for b in (0, 1, 3):
        n = LENGTHS[b]
        alone = jax.hessian(lambda row: weigh(attention(row)))(x[b, :n])
        np.testing.assert_allclose(hessian[b, :n, :, b, :n], alone, rtol=1e-3, atol=1e-4)
    assert np.all(np.isfinite(hessian))


def test_forward_mode_is_reverse_mode(batch):
    x, mask = batch
    tangent = np.where(mask[..., None], np.cos(np.arange(48.0).reshape(4, 4, 3)), 0)
    tangent = tangent.astype(np.float32)
    f = lambda x: total(lambda r: jnp.cumsum(jnp.tanh(r[::-1] @ r.T), 0), x, mask)  # noqa: E731
    _, forward = jax.jvp(f, (x,), (tangent,))
    np.testing.assert_allclose(forward, jnp.vdot(jax.grad(f)(x), tangent), rtol=1e-4)


def test_vmap_around(batch):
    x, mask = batch
    twice = jnp.stack([x, 2 * x])
    y, _ = jax.vmap(jm.ragged_vmap(attention), (0, None))(twice, mask)
    assert_equal_rows(y[1], attention, 2 * x)


def test_closed_over_parameters_have_their_gradient(batch):
    x, mask = batch

    def loss(w):
        return weigh(jm.ragged_vmap(lambda row: jnp.log(jnp.abs(row @ w)).mean(0))(x, mask)[0])

    def alone(w):
        rows = of_rows(lambda row: jnp.log(jnp.abs(row @ w)).mean(0), x)
        return weigh(jnp.stack([*rows[:2], jnp.zeros(3), rows[2]]))

    w = jnp.eye(3) + 0.1
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(w), jax.grad(alone)(w), rtol=1e-4)


def test_under_debug_nans(batch):
    x, mask = batch
    x = np.nan_to_num(x, nan=1e30)
    with jax.debug_nans(True):
        jax.grad(lambda x: total(lambda r: jnp.log(jnp.abs(r[1:] - r[:-1])), x, mask))(x)


def test_half_precision(batch):
    x, mask = batch
    y, _ = jm.ragged_vmap(attention)(jnp.asarray(x, jnp.bfloat16), mask)
    assert y.dtype == jnp.bfloat16


def test_integers_and_keys_pass(batch):
    ids, mask = np.arange(16).reshape(4, 4), batch[1]
    keys = jax.random.split(jax.random.key(0), 4)
    f = lambda row, key: (row + 1, jax.random.normal(key, row.shape))  # noqa: E731
    (y, noise), _ = jm.ragged_vmap(f, (0, 0))(ids, mask, keys)
    assert y[1].tolist() == [5, 0, 0, 0]
    np.testing.assert_allclose(noise[3, :3], jax.random.normal(keys[3], (3,)), rtol=1e-6)


# ------------------------------------------------------------------------ refused input


def test_bad_arguments(batch):
    x, mask = batch
    with pytest.raises(TypeError, match="must be callable"):
        jm.ragged_vmap(3)
    with pytest.raises(ValueError, match="`min_length` must be at least 1"):
        jm.ragged_vmap(attention, min_length=0)
    with pytest.raises(ValueError, match="one entry for each argument"):
        jm.ragged_vmap(attention, (0, None))(x, mask)
    with pytest.raises(ValueError, match="first argument is ragged"):
        jm.ragged_vmap(attention, None)(x, mask)
    with pytest.raises(ValueError, match="the 4 rows of `x`"):
        jm.ragged_vmap(lambda a, b: a, (0, 0))(x, mask, jnp.ones(3))


def test_bad_masks(batch):
    x, mask = batch
    g = jm.ragged_vmap(attention)
    with pytest.raises(TypeError, match="must be boolean"):
        g(x, mask.astype(np.float32))
    with pytest.raises(jm.MaskError, match="looks transposed"):
        g(x[:, :3], mask[:, :3].T)
    with pytest.raises(jm.MaskError, match="rank"):
        g(x, mask[:, 0])
    with pytest.raises(jm.MaskError, match="cannot respect `Segments`"):
        g(x, jm.Segments(mask.astype(np.int32), 1))
    with pytest.raises(ValueError, match=r"must be \[batch, time"):
        g(x[:, 0, 0], mask)


def test_shapes_are_checked_when_traced(batch):
    def asks(row):
        return row if str(row.shape[0]) == "4" else row.sum(0)

    with pytest.raises(jm.ragged.RaggedTraceError, match="compares a length with a number"):
        jm.ragged_vmap(asks)(*batch)


def test_sizes_of_more_lengths_than_can_be_tried_one_by_one():
    x, lengths = np.arange(400.0, dtype=np.float32).reshape(2, 200), np.array([[200], [3]])
    pairs = [(x + k, np.arange(200) < lengths) for k in range(3)]
    g = jm.ragged_vmap(lambda *rows: jnp.concatenate(rows)[1::2])
    y, mask = g(*pairs[0], *pairs[1:])
    alone = [np.concatenate([z[b, :n] for z, _ in pairs])[1::2] for b, (n,) in enumerate(lengths)]
    assert y.shape == (2, 300)
    for row, real, expected in zip(np.asarray(y), np.asarray(mask), alone, strict=True):
        np.testing.assert_array_equal(row[real], expected)
