"""Convolution and pooling over time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxmask as jm
from tests.registry.entry import Call, Entry, Input, module, simple


def weighted(function: Callable, **options: Any) -> Call:
    """`(x, mask, kernel, bias) -> (y, mask)`."""
    return lambda params, xs, masks, rows: [function(xs[0], masks[0], *params, **options)]


def weights(*shape: int, bias: int = 0) -> tuple[jax.Array, ...]:
    keys = jax.random.split(jax.random.key(5))
    kernel = 0.5 * jax.random.normal(keys[0], shape)
    return (kernel, jax.random.normal(keys[1], (bias,))) if bias else (kernel,)


def _separable(params: Any, xs: list, masks: list, rows: Any) -> list:
    kernel, bias = params
    mixed = jnp.cos(jnp.arange(36.0)).reshape(6, 6).astype(kernel.dtype)
    return [jm.conv.separable(xs[0], masks[0], kernel, mixed, bias, dilation=2)]


IMAGE = (Input(features=(4, 2)),)
STEPS = "contiguous"

CONVOLUTION = [
    Entry(
        "conv.conv1d",
        weighted(jm.conv.conv1d),
        params=weights(4, 3, 4, bias=4),
        mask_class=STEPS,
    ),
    Entry(
        "conv.conv1d:valid",
        weighted(jm.conv.conv1d, padding="valid", dilation=2, groups=2),
        (Input(features=(4,)),),
        params=weights(2, 2, 6),
        mask_class=STEPS,
        linear=True,
    ),
    Entry(
        "conv.conv1d:same,strides",
        weighted(jm.conv.conv1d, strides=2),
        params=weights(3, 3, 4, bias=4),
        mask_class=STEPS,
    ),
    Entry(
        "conv.conv1d:full,strides",
        weighted(jm.conv.conv1d, padding="full", strides=3, dilation=2),
        params=weights(2, 3, 4, bias=4),
        mask_class=STEPS,
    ),
    Entry(
        "conv.conv1d:causal,all",
        weighted(jm.conv.conv1d, padding="causal", mask_rule="all"),
        params=weights(2, 3, 4),
        makes_padding=True,
        mask_class=STEPS,
    ),
    Entry(
        "conv.conv1d:reflect",
        weighted(jm.conv.conv1d, padding=(2, 1), padding_mode="reflect", strides=2),
        params=weights(3, 3, 4, bias=4),
        mask_class=STEPS,
    ),
    Entry(
        "conv.depthwise",
        weighted(jm.conv.depthwise, padding="reverse_causal"),
        params=weights(3, 3, 2, bias=6),
        mask_class=STEPS,
    ),
    Entry("conv.separable", _separable, params=weights(3, 3, 2, bias=6), mask_class=STEPS),
    Entry(
        "conv.conv3d",
        weighted(jm.conv.conv3d, strides=(1, 2, 1)),
        (Input(features=(2, 3, 2)),),
        params=weights(2, 2, 2, 2, 3, bias=3),
        mask_class=STEPS,
    ),
    Entry(
        "conv.conv2d_transpose",
        weighted(jm.conv.conv2d_transpose, padding=1, output_padding=(1, 0), strides=(2, 2)),
        IMAGE,
        params=weights(3, 2, 2, 3, bias=3),
        mask_class=STEPS,
    ),
    Entry(
        "conv.conv1d_transpose",
        weighted(jm.conv.conv1d_transpose, strides=2),
        params=weights(5, 3, 4, bias=4),
        mask_class=STEPS,
    ),
    Entry(
        "conv.conv1d_transpose:valid",
        weighted(jm.conv.conv1d_transpose, strides=2, padding="valid"),
        params=weights(3, 3, 4),
        mask_class=STEPS,
        linear=True,
    ),
    Entry(
        "conv.conv2d",
        weighted(jm.conv.conv2d, padding="causal", strides=(2, 2)),
        IMAGE,
        params=weights(2, 3, 2, 3, bias=3),
        mask_class=STEPS,
    ),
]

POOLING = [
    Entry(
        "conv.max_pool1d",
        simple(jm.conv.max_pool1d, 3, strides=1, padding="same"),
        mask_class=STEPS,
    ),
    Entry(
        "conv.max_pool1d:ceil",
        simple(jm.conv.max_pool1d, 2, strides=3, padding=1, dilation=2, ceil_mode=True),
        mask_class=STEPS,
    ),
    Entry("conv.min_pool1d", simple(jm.conv.min_pool1d, 2), mask_class=STEPS),
    Entry(
        "conv.avg_pool1d",
        simple(jm.conv.avg_pool1d, 3, strides=2, padding="full"),
        mask_class=STEPS,
        linear=True,
    ),
    Entry(
        "conv.lp_pool1d",
        simple(jm.conv.lp_pool1d, 3, p=1.5, strides=1, padding="same"),
        mask_class=STEPS,
    ),
    Entry(
        "conv.max_pool2d",
        simple(jm.conv.max_pool2d, (2, 2), padding="reverse_causal"),
        IMAGE,
        mask_class=STEPS,
    ),
    Entry(
        "conv.avg_pool2d",
        simple(jm.conv.avg_pool2d, (3, 3), strides=(1, 2), padding="same"),
        IMAGE,
        mask_class=STEPS,
        linear=True,
    ),
    Entry("shape.downsample", simple(jm.shape.downsample, 2), mask_class=STEPS, linear=True),
]

MODULES = [
    Entry(
        "nn.Conv1D",
        **module(
            lambda rngs: jm.nn.Conv1D(4, 6, 3, padding="causal", dilation=2, groups=2, rngs=rngs),
            streams=True,
        ),
        inputs=(Input(features=(4,)),),
        mask_class=STEPS,
    ),
    Entry(
        "nn.DepthwiseConv1D",
        **module(
            lambda rngs: jm.nn.DepthwiseConv1D(3, 4, 2, padding="causal", rngs=rngs), streams=True
        ),
        mask_class=STEPS,
    ),
    Entry(
        "nn.ConvTranspose1D",
        **module(lambda rngs: jm.nn.ConvTranspose1D(3, 2, 3, strides=2, rngs=rngs)),
        mask_class=STEPS,
    ),
    Entry(
        "nn.SeparableConv1D",
        **module(
            lambda rngs: jm.nn.SeparableConv1D(3, 4, 3, 2, padding="causal", rngs=rngs),
            streams=True,
        ),
        mask_class=STEPS,
    ),
    Entry(
        "nn.ConvTranspose2D",
        **module(lambda rngs: jm.nn.ConvTranspose2D(2, 4, (3, 2), groups=2, rngs=rngs)),
        inputs=IMAGE,
        mask_class=STEPS,
    ),
    Entry(
        "nn.Conv3D",
        **module(lambda rngs: jm.nn.Conv3D(2, 3, (2, 1, 2), rngs=rngs)),
        inputs=(Input(features=(2, 3, 2)),),
        mask_class=STEPS,
    ),
    Entry(
        "nn.Conv2D",
        **module(lambda rngs: jm.nn.Conv2D(2, 3, (3, 2), strides=(1, 2), rngs=rngs)),
        inputs=IMAGE,
        mask_class=STEPS,
    ),
    *(
        Entry(
            f"nn.{name}",
            **module(
                lambda rngs, name=name: getattr(jm.nn, name)(3, strides=1, padding="causal"),
                streams=True,
            ),
            mask_class=STEPS,
        )
        for name in ("MaxPool1D", "MinPool1D", "AvgPool1D", "LpPool1D")
    ),
    Entry("nn.Downsample", **module(lambda rngs: jm.nn.Downsample(3)), mask_class=STEPS),
]

ENTRIES: list[Entry] = [*CONVOLUTION, *POOLING, *MODULES]

NOT_MASKED: dict[str, str] = {}
