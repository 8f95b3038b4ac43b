"""Masks of every kind: padding on either side or on both, holes, and all of them in one batch.

A hole has one meaning a function, and the registry says which: the real steps close up, or a
missing step keeps its place. By either meaning a row is the same as one that begins at the first
column, which the other laws compare with the row alone.
"""

import functools

import jax
import numpy as np
import pytest

import jaxmask as jm
from tests import rows as tools
from tests.law import law

MIXED = "111111 111000 000111 011100 101101 001011 010101 000000"
LEFT = "000001 000011 000111 001111 011111 111111 000000 000001"
HOLES = "100001 110101 101010 000101 010010 011011 100110 000100"
BATCHES = {"mixed": MIXED, "left": LEFT, "holes": HOLES}
ROWS = np.arange(8)
NAN = 2  # the place of the poison


def mask_of(text):
    return np.array([[bit == "1" for bit in row] for row in text.split()])


def masks_of(entry, text):
    """One mask for each that the entry has, each with the rows in another order."""
    mask = mask_of(text)
    count = 1 + max(spec.mask for spec in entry.inputs)
    return [np.roll(mask, 3 * number, axis=0) for number in range(count)]


def compacted(masks):
    return [-np.sort(-mask.astype(int), axis=1) == 1 for mask in masks]


def moved(masks):
    """Each row from the first column on that is real in any of its masks."""
    first = np.any(masks, axis=0).argmax(axis=1)[:, None]
    column = first + np.arange(masks[0].shape[1])
    inside = column < masks[0].shape[1]
    return [np.take_along_axis(mask, np.where(inside, column, 0), 1) & inside for mask in masks]


MEANINGS = {"compacted": compacted, "physical": moved}


@law(of_every_call=False)
def test_every_kind_of_mask_has_its_meaning(entry):
    """Values and gradients are those of the rows that begin at the first column."""
    run = jax.jit(functools.partial(tools.value_and_gradients, entry))
    floats = [spec.mask for spec in entry.inputs if spec.kind != "ids"]
    for kind, text in BATCHES.items():
        results = []
        masks = masks_of(entry, text)
        for poison, given in ((NAN, masks), (0, MEANINGS[entry.holes](masks))):
            xs = tools.arguments(entry, given, ROWS, poison)
            results.append(run(entry.params, xs, given, ROWS))
            by_row = tools.results_by_row(entry, results[-1], given)
            results[-1] = (*results[-1], by_row)
        (pairs, (by_params, by_floats), mine), (_, (expected, _), theirs) = results
        tools.assert_same_rows(mine, theirs, ROWS, kind)
        tools.assert_close(by_params, expected, f"{kind}: gradients in the parameters")
        for gradient, mask in zip(by_floats, [masks[k] for k in floats], strict=True):
            assert not np.asarray(gradient)[~mask].any()
        for y, mask in pairs:
            if mask is not None and "zero_padding" not in entry.exempt:
                assert not np.asarray(y)[~np.asarray(mask)].any()


# ---------------------------------------------------- the physical meaning, spelt out in NumPy


def windows_of(real, size, stride, dilation, padding, rule):
    """`(steps, is real)` of each window over a row from its first to its last real step.

    Steps that are missing, or outside the row, are left out.
    """
    time, span = len(real), (size - 1) * dilation + 1
    left = {"same": (span - 1) // 2, "causal": span - 1, "full": span - 1}.get(padding, 0)
    beyond = {"valid": 1 - span, "full": span - 1}.get(padding, 0)
    for anchor in range(0, time + beyond if time else 0, stride):
        covered = range(anchor - left, anchor - left + span)
        inside = [step for step in covered if 0 <= step < time and real[step]]
        is_real = {
            "anchor": anchor < time and real[min(anchor, time - 1)],
            "all": len(inside) == span,
            "any": len(inside) > 0,
        }[rule]
        taps = [(k, covered[k * dilation]) for k in range(size) if covered[k * dilation] in inside]
        yield taps, is_real


DRAW = np.random.default_rng(3)
KERNEL, BIAS = DRAW.normal(size=(3, 2, 4)), DRAW.normal(size=4)
OF_WINDOW = {
    "conv1d": lambda x, taps: BIAS + sum(x[step] @ KERNEL[k] for k, step in taps),
    "max_pool1d": lambda x, taps: np.max([x[step] for _, step in taps], axis=0),
    "min_pool1d": lambda x, taps: np.min([x[step] for _, step in taps], axis=0),
    "avg_pool1d": lambda x, taps: np.mean([x[step] for _, step in taps], axis=0),
    "lp_pool1d": lambda x, taps: sum(np.abs(x[step]) ** 2 for _, step in taps) ** 0.5,
}
DEFAULT_RULES = {"valid": "all", "full": "any"}
CASES = [
    *((name, stride, 1, "valid", None) for name in OF_WINDOW for stride in (1, 2, 3)),
    *((name, 2, 1, padding, None) for name in OF_WINDOW for padding in ("same", "full")),
    *(
        ("conv1d", stride, 2, padding, None)
        for stride in (1, 2)
        for padding in ("same", "causal", "reverse_causal", "full")
    ),
    *(("conv1d", 2, 1, padding, "all") for padding in ("same", "causal", "full")),
    ("max_pool1d", 3, 1, "full", "anchor"),
]


@pytest.mark.parametrize(("name", "stride", "dilation", "padding", "rule"), CASES)
def test_windows_over_holes(name, stride, dilation, padding, rule):
    mask = mask_of(f"{MIXED} {HOLES}")
    x = np.where(mask[..., None], np.random.default_rng(0).normal(size=(*mask.shape, 2)), np.nan)
    options = {"strides": stride, "padding": padding, "mask_rule": rule}
    function = getattr(jm.conv, name)
    if name == "conv1d":
        weights = KERNEL.astype(np.float32), BIAS.astype(np.float32)
        y, real = function(x.astype(np.float32), mask, *weights, dilation=dilation, **options)
    else:
        y, real = function(x.astype(np.float32), mask, 3, **options)
    rule = rule or DEFAULT_RULES.get(padding, "anchor")
    for row, bits in enumerate(mask):
        columns = np.flatnonzero(bits)
        inside = slice(columns[0], columns[-1] + 1) if len(columns) else slice(0, 0)
        expected = [
            OF_WINDOW[name](x[row, inside], taps)
            for taps, is_real in windows_of(bits[inside], 3, stride, dilation, padding, rule)
            if is_real
        ]
        mine = np.asarray(y)[row, np.asarray(real)[row]]
        assert len(mine) == len(expected), f"row {row}"
        np.testing.assert_allclose(mine, np.reshape(expected, mine.shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", ["same", "valid", "causal"])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_transposed_convolution_over_holes(padding, stride):
    mask = mask_of(f"{MIXED} {HOLES}")
    x = np.where(mask[..., None], np.random.default_rng(0).normal(size=(*mask.shape, 2)), np.nan)
    weights = KERNEL.astype(np.float32), BIAS.astype(np.float32)
    options = {"strides": stride, "padding": padding}
    y, real = jm.conv.conv1d_transpose(x.astype(np.float32), mask, *weights, **options)
    cut = max((3 - stride) // 2, 0) if padding == "same" else 0
    tail = max(3 - stride, 0) if padding == "valid" else 0
    for row, bits in enumerate(mask):
        columns = np.flatnonzero(bits)
        begin, end = (columns[0], columns[-1] + 1) if len(columns) else (0, 0)
        expected = []
        for out in range((end - begin) * stride + tail if len(columns) else 0):
            reached = [step for step in columns - begin if 0 <= out - step * stride < stride + tail]
            taps = [(step, out + cut - step * stride) for step in columns - begin]
            sums = [x[row, begin + step] @ KERNEL[k] for step, k in taps if 0 <= k < 3]
            expected += [BIAS + sum(sums)] if reached else []
        mine = np.asarray(y)[row, np.asarray(real)[row]]
        assert len(mine) == len(expected), f"row {row}"
        np.testing.assert_allclose(mine, np.reshape(expected, mine.shape), rtol=1e-5, atol=1e-5)
