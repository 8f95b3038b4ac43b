"""Convolutions and pooling windows."""

import jax
import jax.numpy as jnp

from tests.ragged.alone import Row, spaced


def conv(padding="SAME", stride=1, dilation=1, size=3, groups=1, input_dilation=1):
    def f(x, w):
        kernel = jnp.stack([w * (k + 1) / 3 for k in range(size)])
        if groups == 3:
            kernel = kernel[:, :1]
        return jax.lax.conv_general_dilated(
            x[None],
            kernel,
            (stride,),
            padding,
            lhs_dilation=(input_dilation,),
            rhs_dilation=(dilation,),
            feature_group_count=groups,
            dimension_numbers=("NWC", "WIO", "NWC"),
        )[0]

    return f


def pool(operation, init, window=3, stride=1, padding="SAME"):
    def f(x):
        return jax.lax.reduce_window(x, init, operation, (window, 1), (stride, 1), padding)

    return f


def stack_of_convs(x, w):
    for _ in range(2):
        x = jax.nn.relu(conv()(x, w) + w[0])
    return x.mean(0)


PROGRAMS = {
    "same": Row(conv()),
    "same_even_kernel": Row(conv(size=2)),
    "same_stride_2": Row(conv(stride=2)),
    "same_stride_3": Row(conv(stride=3, size=4)),
    "valid": Row(conv("VALID"), min_length=3),
    "valid_of_two": Row(conv("VALID", size=2)),
    "valid_stride_2": Row(conv("VALID", stride=2), min_length=3),
    "circular_by_hand": Row(lambda x, w: conv("VALID")(jnp.concatenate([x[-1:], x, x[:1]]), w)),
    "causal": Row(conv([(2, 0)])),
    "causal_stride": Row(conv([(2, 0)], stride=2)),
    "full": Row(conv([(2, 2)])),
    "dilated": Row(conv(dilation=2)),
    "depthwise": Row(conv(groups=3)),
    "one": Row(conv(size=1)),
    "transposed": Row(conv([(2, 2)], input_dilation=2)),
    "conv_transpose": Row(
        lambda x, w: jax.lax.conv_transpose(
            x[None], jnp.stack([w, w]), (2,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )[0]
    ),
    "time_as_the_batch": Row(
        lambda x, w: jax.lax.conv_general_dilated(
            x[:, None], w[None, :1], (1,), "SAME", dimension_numbers=("NCW", "OIW", "NCW")
        )[:, 0]
    ),
    "stack": Row(stack_of_convs),
    "max_pool": Row(pool(jax.lax.max, -jnp.inf), domain=spaced),
    "max_pool_stride": Row(pool(jax.lax.max, -jnp.inf, 2, 2), domain=spaced),
    "sum_pool": Row(pool(jax.lax.add, 0.0)),
    "sum_pool_valid": Row(pool(jax.lax.add, 0.0, 2, 1, "VALID")),
    "sum_pool_valid_stride": Row(pool(jax.lax.add, 0.0, 2, 2, "VALID"), min_length=2),
    "min_pool": Row(pool(jax.lax.min, jnp.inf), domain=spaced),
    "fixed_filter": Row(
        lambda x: jnp.convolve(x, jnp.array([1.0, 2.0, 1.0]), "same"), features=None
    )
    if False
    else Row(conv([(1, 1)])),
}
