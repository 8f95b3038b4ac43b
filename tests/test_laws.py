"""The laws that every public masked function obeys, over the whole registry."""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from tests import optimised
from tests import rows as tools
from tests.law import law, one_for_each_function
from tests.registry import REGISTRY, Entry

ROWS = np.arange(4)
PLATFORMS = ("cpu", "cuda", "tpu")


def takes_floats(entry):
    return any(spec.kind != "ids" for spec in entry.inputs)


def kept(make):
    """Keep the last few programs that `make(jit, entry, ...)` builds, for each way to compile."""
    cached = functools.lru_cache(maxsize=8)(make)
    return lambda *arguments: cached(optimised.compiler(), *arguments)


@kept
def compiled(jit, entry):
    """The values and gradients of an entry as one program."""
    return jit(functools.partial(tools.value_and_gradients, entry))


def usual(entry):
    """The program of the usual shape: one for all laws, optimised for one call of each function."""
    with optimised.optimised(entry.name in one_for_each_function() or optimised.is_on()):
        return compiled(entry)


def evaluate(entry, masks, rows=ROWS, poison=0, dtype=np.float32):
    """Run an entry."""
    xs = tools.arguments(entry, masks, rows, poison, dtype)
    is_usual = masks[0].shape == (len(ROWS), tools.TIME) and dtype == np.float32
    program = usual(entry) if is_usual else compiled(entry)
    return program(entry.params, xs, masks, np.asarray(rows))


def layouts(entry):
    return tools.BY_CLASS[entry.mask_class]


@law(of_gradients=True)
def test_padding_changes_nothing(entry):
    """Values, masks and all gradients are equal to the bit, whatever stands in the padding."""
    for layout in layouts(entry):
        masks = tools.masks_for(entry, layout)
        base = evaluate(entry, masks)
        for poison in range(1, len(tools.FLOAT_POISONS)):
            where = f"{layout}, poison {tools.FLOAT_POISONS[poison]}"
            tools.assert_bits(base, evaluate(entry, masks, poison=poison), where)


@law(of_gradients=True)
def test_zero_padding(entry):
    """Padding of a result is exactly 0, and padding of an argument gets exactly no gradient."""
    for layout in layouts(entry):
        masks = tools.masks_for(entry, layout)
        pairs, (_, gradients) = evaluate(entry, masks)
        floats = [masks[spec.mask] for spec in entry.inputs if spec.kind != "ids"]
        for y, mask in [*pairs, *zip(gradients, floats, strict=True)]:
            if mask is not None:
                assert not np.asarray(y)[~np.asarray(mask)].any()


@law(of_gradients=True)
def test_zero_gradient_at_padding(entry):
    """Padding of an argument gets exactly no gradient, even from a loud cotangent."""
    masks = tools.masks_for(entry, "right")
    _, (_, gradients) = evaluate(entry, masks)
    floats = [masks[spec.mask] for spec in entry.inputs if spec.kind != "ids"]
    for gradient, mask in zip(gradients, floats, strict=True):
        assert not np.asarray(gradient)[~mask].any()


@law(of_gradients=True)
def test_row_alone(entry):
    """A row in a batch is that row alone, unpadded; parameter gradients of rows add up.

    Of rows that are padded, and of one length but for one call of each function: each length
    compiles a program. The others are for `test_rows_of_any_length_alone`.
    """
    is_first = entry.name in one_for_each_function()
    lengths = ((0, 4, 1, 0), (0, 0, 1, 2)) if is_first else ((0, 4, 4, 0), (0, 1, 1, 2))
    assert_rows_alone(entry, tools.masks_for(entry, layouts(entry)[-1], lengths=lengths))


@pytest.mark.exhaustive
@law(over=lambda entry: "row_alone" not in entry.exempt, of_gradients=True)
def test_rows_of_any_length_alone(entry):
    """The same with a row that has no padding, and one of a single step."""
    assert_rows_alone(entry, tools.masks_for(entry, layouts(entry)[-1]))


def assert_rows_alone(entry, masks):
    batch = evaluate(entry, masks)
    together = tools.results_by_row(entry, batch, masks)
    total = jax.tree.map(np.zeros_like, entry.params)
    for row in [row for row in ROWS if any(mask[row].any() for mask in masks)]:
        alone = [np.ones((1, int(mask[row].sum())), bool) for mask in masks]
        with optimised.optimised(False):  # what it is compared with need not be optimised
            result = evaluate(entry, alone, rows=[row])
        by_row = tools.results_by_row(entry, result, alone)
        tools.assert_same_rows(by_row, together, [row], f"row {row} alone")
        total = jax.tree.map(np.add, total, result[1][0])
    tools.assert_close(batch[1][0], total, "gradients in the parameters")


sent_back = jax.jit(tools.cotangent)  # op by op it compiles a dozen programs an entry


@law(of_gradients=True)
def test_gradients_are_slopes(entry):
    """Every gradient is the slope that finite differences see, at real steps and in parameters."""
    masks = tools.masks_for(entry, layouts(entry)[-1])
    xs = tools.arguments(entry, masks, ROWS)
    pairs, (by_params, by_floats) = compiled(entry)(entry.params, xs, masks, ROWS)
    sent = [sent_back(y, mask, ROWS) for y, mask in pairs]

    def total(step):
        arrays = [x + step * d if d is not None else x for x, d in zip(xs, along, strict=True)]
        params = jax.tree.map(lambda p, d: np.asarray(p) + step * d, entry.params, along_params)
        values, _ = compiled(entry)(params, arrays, masks, ROWS)
        return sum(
            np.vdot(np.where(np.asarray(s) == tools.LOUD, 0, s), np.asarray(y, np.float64))
            for s, (y, _) in zip(sent, values, strict=True)
            if jnp.issubdtype(y.dtype, jnp.floating)
        )

    along = [tools.direction(x, masks[s.mask], s) for x, s in zip(xs, entry.inputs, strict=True)]
    along_params = jax.tree.map(lambda p: np.cos(np.arange(p.size)).reshape(p.shape), entry.params)
    directions = [*(d for d in along if d is not None), *jax.tree.leaves(along_params)]
    gradients = [*by_floats, *jax.tree.leaves(by_params)]
    slope = sum(np.vdot(d, np.asarray(g)) for d, g in zip(directions, gradients, strict=True))
    step = 2e-3
    np.testing.assert_allclose(
        slope, (total(step) - total(-step)) / (2 * step), rtol=0.02, atol=0.02
    )


@law(of_every_call=False)
def test_more_padding(entry):
    """An odd and an even number of steps of padding on the right change nothing."""
    masks = tools.masks_for(entry, "right")
    base = tools.results_by_row(entry, evaluate(entry, masks), masks)
    for extra in (1,) if entry.mask_class == "any" else (1, 2):  # where position may count
        wider = tools.masks_for(entry, "right", tools.TIME + extra)
        result = tools.results_by_row(entry, evaluate(entry, wider, poison=2), wider)
        tools.assert_same_rows(result, base, ROWS, f"{extra} more")


@law(of_gradients=True)
def test_layouts(entry):
    """Where the padding lies changes nothing, as far as the mask class says."""
    first, *others = layouts(entry)
    masks = tools.masks_for(entry, first)
    base = tools.results_by_row(entry, evaluate(entry, masks), masks)
    for layout in others:
        masks = tools.masks_for(entry, layout)
        result = tools.results_by_row(entry, evaluate(entry, masks), masks)
        tools.assert_same_rows(result, base, ROWS, layout)


@law(of_gradients=True)
def test_permute(entry):
    """Rows in another order give the results in that order."""
    masks = tools.masks_for(entry, layouts(entry)[-1])
    base = tools.results_by_row(entry, evaluate(entry, masks), masks)
    order = np.array([2, 0, 3, 1])
    permuted = [mask[order] for mask in masks]
    result = tools.results_by_row(entry, evaluate(entry, permuted, rows=order), permuted)
    tools.assert_same_rows(result, base, order, "permuted")


@law(of_gradients=True)
def test_empty_rows(entry):
    """A batch without any real step gives zeros, an all-False mask and no gradient."""
    masks = [np.zeros_like(mask) for mask in tools.masks_for(entry, "right")]
    pairs, gradients = evaluate(entry, masks, poison=2)
    for y, mask in pairs:
        if mask is not None and "zero_padding" not in entry.exempt:
            assert not np.asarray(mask).any()
            assert not np.asarray(y).any()
    for gradient in jax.tree.leaves(gradients):
        assert not np.asarray(gradient).any()


@law(over=lambda entry: entry.inputs[0].kind != "ids", of_gradients=True)
def test_nan_stays_in_its_row(entry):
    """A nan at real steps shows in the result of its row, and nowhere else."""
    spec = entry.inputs[0]
    masks = tools.masks_for(entry, layouts(entry)[-1])
    xs = tools.arguments(entry, masks, ROWS)
    base, _ = compiled(entry)(entry.params, xs, masks, ROWS)
    xs[0][0][masks[spec.mask][0]] = np.nan
    spoiled, _ = compiled(entry)(entry.params, xs, masks, ROWS)
    shown = False
    for (y, mask), (z, _) in zip(base, spoiled, strict=True):
        kept = [rows[1:] for rows in (tools.real_steps(y, mask), tools.real_steps(z, mask))]
        tools.assert_bits(*kept, "other rows")
        if jnp.issubdtype(z.dtype, jnp.floating):
            shown |= bool(np.isnan(np.asarray(z[:1] if z.ndim else z, np.float32)).any())
            if mask is not None and "zero_padding" not in entry.exempt:
                assert not np.asarray(z, np.float32)[~np.asarray(mask)].any()
    assert shown


@law(of_every_call=False)
def test_eager_is_jit(entry):
    """Op by op is the same, with nan and inf in the padding and JAX's debug checks on."""
    masks = tools.masks_for(entry, layouts(entry)[-1])
    expected = evaluate(entry, masks)
    for poison in (2, 3):
        xs = [jnp.asarray(x) for x in tools.arguments(entry, masks, ROWS, poison)]
        with jax.debug_nans(True), jax.debug_infs(True):  # at once, to compile each op once
            pairs = entry.call(entry.params, xs, masks, ROWS)
        tools.assert_close(pairs, expected[0], f"eager, poison {tools.FLOAT_POISONS[poison]}")


@law(of_gradients=True)
def test_gradients_under_debug_checks(entry):
    """The compiled gradients make no nan or inf on the way out."""
    masks = tools.masks_for(entry, layouts(entry)[-1])
    for poison, config in ((2, jax.debug_nans), (3, jax.debug_infs)):
        with config(True):
            evaluate(entry, masks, poison=poison)


@law(of_every_call=False)
def test_lowers(entry):
    """Values and gradients lower for every platform, on a machine that has only a CPU."""
    masks = tools.masks_for(entry, layouts(entry)[-1])
    xs = tools.arguments(entry, masks, ROWS)
    lower = jax.export.export(usual(entry), platforms=PLATFORMS)
    assert lower(entry.params, xs, masks, ROWS).platforms == PLATFORMS


@law(of_every_call=False)
def test_vmap(entry):
    """A mapped axis of batches gives each batch's result."""
    masks = tools.masks_for(entry, layouts(entry)[-1])
    order = np.array([2, 0, 3, 1])
    both_masks = [np.stack([mask, mask[order]]) for mask in masks]
    both_rows = np.stack([ROWS, order])
    xs = [
        np.stack(pair)
        for pair in zip(
            tools.arguments(entry, masks, ROWS),
            tools.arguments(entry, [mask[order] for mask in masks], order),
            strict=True,
        )
    ]
    run = functools.partial(tools.value_and_gradients, entry, entry.params)
    mapped = optimised.compiler()(jax.vmap(run))(xs, both_masks, both_rows)
    for index, rows in enumerate(both_rows):
        one = evaluate(entry, [mask[index] for mask in both_masks], rows=rows)
        tools.assert_close(jax.tree.map(lambda a, i=index: np.asarray(a)[i], mapped), one, "vmap")


@law(over=lambda entry: entry.stream)
def test_chunks_are_one_call(entry):
    """Any split into chunks gives what one long call gives, value and gradient."""
    for layout in layouts(entry):
        masks = tools.masks_for(entry, layout)
        whole = evaluate(entry, masks)
        base = tools.results_by_row(entry, whole, masks)
        xs = tools.arguments(entry, masks, ROWS, poison=2)
        result = streamed(entry, (1, 2, 2))(entry.params, xs, masks, ROWS)
        tools.assert_same_rows(tools.results_by_row(entry, result, masks), base, ROWS, layout)
        tools.assert_close(result[1][0], whole[1][0], "gradients in the parameters")


@kept
def streamed(jit, entry, sizes):
    """The entry run in chunks of so many steps, with its gradients."""
    bounds = np.cumsum((0, *sizes))

    def call(params, xs, masks, rows):
        carry, pairs = entry.stream.initial(params, masks[0].shape[0]), []
        for start, end in itertools.pairwise(bounds):
            chunk, chunk_mask = xs[0][:, start:end], masks[0][:, start:end]
            carry, pair = entry.stream.run(params, carry, chunk, chunk_mask)
            pairs.append(pair)
        values, chunk_masks = zip(*pairs, strict=True)
        return [(jnp.concatenate(values, axis=1), jnp.concatenate(chunk_masks, axis=1))]

    return compiled(dataclasses.replace(entry, call=call))


@law(over=takes_floats, of_every_call=False)
def test_second_derivatives(entry):
    """A gradient of gradients is untouched by what stands in the padding, and 0 there."""
    masks = tools.masks_for(entry, layouts(entry)[-1])
    base = second_derivatives(entry)(tools.arguments(entry, masks, ROWS), masks)
    for poison in (2, 3):
        result = second_derivatives(entry)(tools.arguments(entry, masks, ROWS, poison), masks)
        tools.assert_bits(base, result, f"poison {tools.FLOAT_POISONS[poison]}")
    floats = [masks[spec.mask] for spec in entry.inputs if spec.kind != "ids"]
    for gradient, mask in zip(base, floats, strict=True):
        assert np.isfinite(np.asarray(gradient)).all()
        assert not np.asarray(gradient)[~mask].any()


@kept
def second_derivatives(jit, entry):
    def slope(floats, xs, masks):
        given = iter(floats)
        arrays = [next(given) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in xs]
        _, (_, gradients) = tools.value_and_gradients(entry, entry.params, arrays, masks, ROWS)
        return sum(jnp.vdot(tools.flat_cotangent(g), g) for g in gradients)

    def run(xs, masks):
        floats = [x for x in xs if jnp.issubdtype(x.dtype, jnp.floating)]
        return jax.grad(slope)(floats, xs, masks)

    return jit(run)


@law(over=lambda entry: entry.linear)
def test_complex(entry):
    """A linear function acts on the real and on the imaginary part: f(a + ib) = f(a) + i f(b)."""
    masks = tools.masks_for(entry, layouts(entry)[-1])
    a = tools.arguments(entry, masks, ROWS)[0]
    b = tools.arguments(entry, masks, ROWS[::-1].copy(), poison=2)[0]
    b = np.where(masks[0].reshape(*masks[0].shape, *[1] * (b.ndim - 2)), b, 7)

    def run(x):
        return entry.call(entry.params, [jnp.asarray(x)], masks, ROWS)

    for (y, _), (real, _), (imaginary, _) in zip(run(a + 1j * b), run(a), run(b), strict=True):
        tools.assert_close(y.real, real, "real part")
        tools.assert_close(y.imag, imaginary, "imaginary part")


@law(of_every_call=False)
def test_no_mask(entry):
    """`mask=None` is the all-True mask, and None comes out where no padding is made."""
    masks = tools.masks_for(entry, "right", lengths=((5, 5, 5, 5), (5, 5, 5, 5)))
    xs = tools.arguments(entry, masks, ROWS)
    full_pairs, full_gradients = evaluate(entry, masks)
    full_masks = [mask for _, mask in full_pairs]
    pairs, gradients = compiled(entry)(entry.params, xs, [None] * len(masks), ROWS, full_masks)
    for (y, mask), (full_y, full_mask) in zip(pairs, full_pairs, strict=True):
        assert entry.makes_padding == (mask is not None)
        assert entry.makes_padding or full_mask is None or np.asarray(full_mask).all()
        tools.assert_close(y, full_y, "values")
    tools.assert_close(gradients, full_gradients, "gradients")


@law(of_every_call=False)
def test_no_time_and_no_rows(entry):
    """Zero-length time and empty batches are no errors; they give results of such shapes."""
    for lengths, time in ((((0, 0), (0, 0)), 0), (((), ()), 2)):
        masks = tools.masks_for(entry, "right", time, lengths)
        pairs, gradients = evaluate(entry, masks, rows=ROWS[: len(lengths[0])])
        for leaf in jax.tree.leaves((pairs, gradients)):
            assert np.isfinite(np.asarray(leaf, np.float64)).all()


@law(of_every_call=False)
def test_half_precision(entry):
    """bfloat16 and float16 stay what they are, near float32, and padding does not overflow them."""
    masks = tools.masks_for(entry, layouts(entry)[-1])
    for dtype, rtol in ((jnp.bfloat16, 0.1), (np.float16, 0.02)):
        base = evaluate(entry, masks, dtype=dtype)
        for poison in (1, 2, 3):
            tools.assert_bits(base, evaluate(entry, masks, poison=poison, dtype=dtype), str(dtype))
        for (y, _), (full, _) in zip(base[0], evaluate(entry, masks)[0], strict=True):
            tools.assert_close(y, full, str(dtype), rtol)
        (y, _), takes_floats = base[0][0], entry.inputs[0].kind != "ids"
        # Parameters of modules are float32, and losses and metrics may widen.
        if jnp.issubdtype(y.dtype, jnp.integer):  # ids out of scores
            continue
        widening = ("nn.", "metrics.", "losses.", "decoding.score")
        if takes_floats and not entry.name.startswith(widening):
            assert y.dtype == dtype


LARGEST = 6e4  # a little below what float16 holds
USUAL = "300"  # the arguments of the usual shape are of this size


@law(over=lambda entry: any(spec.kind == "float" for spec in entry.inputs), of_every_call=False)
def test_half_precision_at_scale(entry):
    """What fits in float16 does not overflow on the way: inputs of 300, 60 features of 60."""
    masks = tools.masks_for(entry, layouts(entry)[-1])
    for name, xs in at_scale(entry, masks).items():
        xs16 = [x.astype(np.float16) if x.dtype == np.float32 else x for x in xs]
        program = usual(entry) if name == USUAL else compiled(entry)
        narrow = compiled(entry)(entry.params, xs16, masks, ROWS)
        full = program(entry.params, xs, masks, ROWS)
        for number, (a, b) in enumerate(zip(*map(jax.tree.leaves, (narrow, full)), strict=True)):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            fits = np.abs(b) < LARGEST
            scale = np.abs(b[fits]).max(initial=1.0)
            where = f"{name}: leaf {number} of the values and gradients"
            np.testing.assert_allclose(a[fits], b[fits], atol=0.05 * scale, err_msg=where)


def at_scale(entry, masks):
    """Arguments by name; those of 60 features for functions whose parameters fix no number."""
    found = {USUAL: tools.arguments(entry, masks, ROWS)}
    wide = [
        dataclasses.replace(spec, features=(60,)) if spec.features in ((3,), (5,)) else spec
        for spec in entry.inputs
    ]
    wider = dataclasses.replace(entry, inputs=tuple(wide))
    xs = tools.arguments(wider, masks, ROWS)
    if not jax.tree.leaves(entry.params) and takes(wider, xs, masks):
        found["60 features of 60"] = xs
    for name, xs in found.items():
        size = float(name.split()[-1])
        for x, spec in zip(xs, entry.inputs, strict=True):
            if spec.kind == "float":
                np.copyto(x, size * np.sign(x))
    return found


def takes(entry, xs, masks):
    try:
        jax.eval_shape(lambda xs: entry.call(entry.params, xs, masks, ROWS), xs)
    except (TypeError, ValueError):
        return False
    return True


@law()
def test_numpy_arguments(entry):
    """NumPy arrays do wherever JAX arrays do."""
    masks = tools.masks_for(entry, "right")
    xs = tools.arguments(entry, masks, ROWS)
    pairs = jax.eval_shape(lambda: entry.call(entry.params, xs, masks, ROWS))
    expected = jax.tree.map(lambda a: (a.shape, a.dtype), evaluate(entry, masks)[0])
    assert jax.tree.map(lambda a: (a.shape, a.dtype), pairs) == expected


@law()
def test_row_masks(entry):
    """Per-step functions take rows too, `[batch, feature]` with a mask `[batch]`."""
    if not entry.of_rows:
        with pytest.raises(jm.MaskError, match="mask"):
            call_rows(entry, 1)
        return
    base = call_rows(entry, 1)
    for poison in range(2, 5):
        tools.assert_bits(base, call_rows(entry, poison), f"poison {poison}")
    (y, mask), *_ = base[0]
    assert mask is None or mask.shape == (4,)
    if mask is not None and "zero_padding" not in entry.exempt:
        assert not np.asarray(y)[~np.asarray(mask)].any()


def call_rows(entry, poison):
    masks = [np.array([[True], [False], [True], [True]])] * len(tools.masks_for(entry, "right"))
    xs = [x[:, 0] for x in tools.arguments(entry, masks, ROWS, poison)]
    return compiled(entry)(entry.params, xs, [mask[:, 0] for mask in masks], ROWS)


BAD_MASKS = {
    "float": (lambda mask: mask.astype(np.float32), TypeError, "boolean"),
    "int": (lambda mask: mask.astype(np.int32), TypeError, "boolean"),
    "lengths": (lambda mask: mask.sum(1), TypeError, "from_lengths"),
    "other time": (lambda mask: mask[:, :-1], jm.MaskError, "shape"),
    "other batch": (lambda mask: mask[:-1], jm.MaskError, "shape"),
    "one row": (lambda mask: mask[:1], jm.MaskError, "shape"),
    "one step": (lambda mask: mask[:, :1], jm.MaskError, "shape"),
    "transposed": (lambda mask: mask.T, jm.MaskError, "shape|transposed"),
    "rank 3": (lambda mask: mask[..., None], jm.MaskError, "rank|\\[batch, outer, time\\]"),
    "list": (lambda mask: mask.tolist(), TypeError, "array"),
}


@law()
def test_bad_masks_are_refused(entry):
    """Every mask that does not belong is refused when traced, by a text that says `mask`."""
    masks = tools.masks_for(entry, "right")
    xs = tools.arguments(entry, masks, ROWS)
    for name, (spoil, error, text) in BAD_MASKS.items():
        bad = [spoil(masks[0]), *masks[1:]]
        with pytest.raises(error, match=f"(?s)mask.*({text})|({text}).*mask") as raised:
            jax.eval_shape(lambda xs, bad=bad: entry.call(entry.params, xs, bad, ROWS), xs)
        assert re.search("mask", str(raised.value)), name


def without_carry(entry: Entry) -> Entry:
    """A packed row has one carry, and its sequences have several."""

    def call(*arguments):
        return [pair for pair in entry.call(*arguments) if pair[1] is not None]

    return dataclasses.replace(entry, call=call)


@law(of_every_call=False)
def test_segments(entry):
    """Each sequence of a packed row is that sequence alone, value and gradient."""
    if entry.name.startswith("recurrent."):
        entry = without_carry(entry)
    lengths = dict(enumerate(tools.LENGTHS[0]))
    layout = np.array([[1, 2], [2, 1]])  # row ids of the segments of each packed row
    ids = np.array([[1] * 4 + [2] + [0] * 2, [0] + [1] + [2] * 4 + [0]], np.int32)
    segments = [jm.Segments(jnp.asarray(ids), 2)] * (1 + max(s.mask for s in entry.inputs))
    xs = []
    for position, spec in enumerate(entry.inputs):
        x = np.full((*ids.shape, *spec.features), 1, np.int32 if spec.kind == "ids" else np.float32)
        for b, s in np.ndindex(layout.shape):
            row = layout[b, s]
            x[b, ids[b] == s + 1] = tools.content(spec, position, row, lengths[row])
        xs.append(x)
    pairs, (_, gradients) = compiled(entry)(entry.params, xs, segments, layout)
    floats = [spec for spec in entry.inputs if spec.kind != "ids"]
    inputs = zip(gradients, segments * len(floats), strict=False)
    packed = [tools.real_steps(y, mask) for y, mask in [*pairs, *inputs]]
    for index, row in enumerate(layout.ravel()):
        alone = [np.ones((1, lengths[row]), bool)] * len(segments)
        by_row = tools.results_by_row(entry, evaluate(entry, alone, rows=[row]), alone)
        tools.assert_same_rows(by_row, packed, [index], f"sequence {row}")
    # What stands in the first sequence of each row reaches no other, not in values nor gradients.
    for loud in (1e30, np.nan, np.inf):
        spoiled = [
            x
            if spec.kind == "ids"
            else np.where((ids == 1).reshape(*ids.shape, *[1] * (x.ndim - 2)), loud, x)
            for x, spec in zip(xs, entry.inputs, strict=True)
        ]
        spoiled = [a.astype(x.dtype) for a, x in zip(spoiled, xs, strict=True)]
        pairs, (_, gradients) = compiled(entry)(entry.params, spoiled, segments, layout)
        inputs = zip(gradients, segments * len(floats), strict=False)
        for number, (y, mask) in enumerate([*pairs, *inputs]):
            mine = tools.real_steps(y, mask)
            where = f"{loud} in another sequence: result {number}"
            tools.assert_bits(mine[1::2], packed[number][1::2], where)


@pytest.mark.parametrize(
    "entry", [entry for entry in REGISTRY if "refuses" in entry.exempt.get("segments", "")], ids=str
)
def test_segments_refused(entry):
    masks = [jm.Segments(mask.astype(np.int32), 1) for mask in tools.masks_for(entry, "right")]
    xs = tools.arguments(entry, tools.masks_for(entry, "right"), ROWS)
    with pytest.raises((jm.MaskError, TypeError), match=r"[Ss]egments"):
        entry.call(entry.params, xs, masks, ROWS)
