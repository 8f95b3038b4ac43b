"""Windows and their transposes against PyTorch on each row alone, in values and gradients."""

import pytest

torch = pytest.importorskip("torch")
import jax.numpy as jnp  # noqa: E402

import jaxmask as jm  # noqa: E402
from tests.test_conv import assert_rows_of_torch, draw, ragged  # noqa: E402

functional = torch.nn.functional


def of_rows(function, features):
    """`function([1, feature, time])` on one row `[time, feature]`, which may be empty."""

    def run(row, *weights):
        if not len(row):
            return row.new_zeros((0, features))
        return function(row.T[None], *weights)[0].T

    return run


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_modes(mode):
    """PyTorch refuses rows that are no longer than their padding; here one step suffices."""
    theirs = {"zeros": "constant"}.get(mode, mode)

    def alone(row, kernel, bias):
        if len(row) < 2:  # `test_conv_options.py` has NumPy's answer
            return row.new_zeros((0, 2))
        padded = functional.pad(row.T[None], (1, 1), mode=theirs)
        return functional.conv1d(padded, kernel.permute(2, 1, 0), bias, stride=2)[0].T

    def ours(x, mask, kernel, bias):
        y, mask = jm.conv.conv1d(*(x, mask, kernel, bias), padding=1, padding_mode=mode, strides=2)
        return y, mask & jm.masks.from_lengths(8 * (mask.sum(1) > 1), mask.shape[1])

    x = ragged(4)
    assert_rows_of_torch(torch, ours, alone, x, draw(3, 4, 2), draw(2))


POOLS = [
    {"stride": 2, "padding": 1},
    {"stride": 2, "ceil_mode": True},
    {"stride": 3, "padding": 1, "ceil_mode": True},
]


@pytest.mark.parametrize("options", POOLS, ids=str)
@pytest.mark.parametrize("dilation", [1, 2])
def test_pools(options, dilation):
    ours = {{"stride": "strides"}.get(k, k): v for k, v in options.items()}

    def alone(pool):
        def run(row):
            sides = 2 * options.get("padding", 0)
            span = (3 - 1) * dilation + 1
            short = len(row) + sides - span + (options["stride"] - 1) * ("ceil_mode" in options)
            if not len(row) or short < 0:  # PyTorch refuses a result of no step
                return row.new_zeros((0, 3))
            y = pool(row.T[None])[0].T
            # A window that reads no step is 0 here.
            return torch.where(torch.isinf(y), torch.zeros_like(y), y)

        return run

    assert_rows_of_torch(
        torch,
        lambda x, mask: jm.conv.max_pool1d(x, mask, 3, dilation=dilation, **ours),
        alone(lambda x: functional.max_pool1d(x, 3, dilation=dilation, **options)),
        ragged(3),
    )
    if dilation == 1:
        assert_rows_of_torch(
            torch,
            lambda x, mask: jm.conv.avg_pool1d(x, mask, 3, **ours),
            alone(lambda x: functional.avg_pool1d(x, 3, count_include_pad=False, **options)),
            ragged(3),
        )


@pytest.mark.parametrize(
    ("strides", "padding", "output_padding", "dilation", "groups"),
    [(2, 1, 1, 1, 1), (2, 1, 0, 1, 2), (3, 0, 2, 1, 1), (1, 1, 0, 2, 2)],
)
def test_transposes(strides, padding, output_padding, dilation, groups):
    options = {"padding": padding, "output_padding": output_padding, "dilation": dilation}

    def theirs(x, kernel, bias):
        # Ours is [window, feature // groups, out]; theirs is [feature, out // groups, window].
        parts = [part.permute(1, 2, 0) for part in kernel.chunk(groups, dim=2)]
        weight = torch.cat(parts, dim=0)
        given = {"stride": strides, "groups": groups} | options
        return functional.conv_transpose1d(x, weight, bias, **given)

    def ours(x, mask, kernel, bias):
        given = {"strides": strides, "groups": groups} | options
        return jm.conv.conv1d_transpose(x, mask, kernel, bias, **given)

    kernel, bias = draw(3, 4 // groups, 2), draw(2)
    assert_rows_of_torch(torch, ours, of_rows(theirs, 2), ragged(4), kernel, bias)


def test_a_transpose_and_a_convolution_in_more_axes():
    def back(row, kernel, bias):
        if not len(row):
            return row.new_zeros((0, 7, 3))
        options = {"stride": 2, "padding": (1, 0), "output_padding": (1, 0)}
        x, weight = row.permute(2, 0, 1)[None], kernel.permute(2, 3, 0, 1)
        y = functional.conv_transpose2d(x, weight, bias, **options)
        return y[0].permute(1, 2, 0)

    def ours(x, mask, kernel, bias):
        return jm.conv.conv2d_transpose(
            *(x, mask, kernel, bias),
            **{"strides": (2, 2), "padding": 1, "frequency_padding": 0, "output_padding": (1, 0)},
        )

    assert_rows_of_torch(torch, ours, back, ragged(3, 2), draw(3, 3, 2, 3), draw(3))

    def video(row, kernel, bias):
        if not len(row):
            return row.new_zeros((0, 2, 2, 3))
        x, weight = row.permute(3, 0, 1, 2)[None], kernel.permute(4, 3, 0, 1, 2)
        y = functional.conv3d(x, weight, bias, stride=(2, 1, 2), padding=(1, 0, 1))
        return y[0].permute(1, 2, 3, 0)

    def ours_of_video(x, mask, kernel, bias):
        options = {"padding": 1, "space_padding": "valid", "strides": (2, 1, 2)}
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1), (0, 0)))
        return jm.conv.conv3d(x, mask, kernel, bias, **options)

    assert_rows_of_torch(torch, ours_of_video, video, ragged(3, 3, 2), draw(3, 2, 3, 2, 3), draw(3))
