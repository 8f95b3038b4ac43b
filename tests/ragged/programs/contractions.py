"""Products over features and over time."""

import jax
import jax.numpy as jnp

from tests.ragged.alone import Row


def attention(x, w):
    q, k, v = x @ w, x @ w.T, x * w[0]
    return jax.nn.softmax(q @ k.T / jnp.sqrt(3.0)) @ v


def causal(x):
    n = x.shape[0]
    scores = jnp.where(jnp.tril(jnp.ones((n, n), bool)), x @ x.T, -jnp.inf)
    return jax.nn.softmax(scores) @ x


def windowed(x):
    k = jnp.arange(x.shape[0])
    near = jnp.abs(k[:, None] - k) <= 1
    return jax.nn.softmax(jnp.where(near, x @ x.T, -1e9)) @ x


def multi_head(x, w):
    heads = jnp.einsum("td,hde->thde"[:0] + "td,de->te", x, w).reshape(x.shape[0], 3, 1)
    scores = jnp.einsum("qhe,khe->hqk", heads, heads)
    return jnp.einsum("hqk,khe->qhe", jax.nn.softmax(scores), heads).reshape(x.shape[0], 3)


def cross(x, z):
    return jax.nn.softmax(x @ z.T) @ z


def distances(x):
    return ((x[:, None] - x[None]) ** 2).sum(-1)


def relative_bias(x, w):
    k = jnp.arange(x.shape[0])
    bias = w.reshape(-1)[jnp.clip(k[:, None] - k + 4, 0, 8)]
    return jax.nn.softmax(x @ x.T + bias) @ x


def alibi(x):
    k = jnp.arange(x.shape[0])
    return jax.nn.softmax(x @ x.T - jnp.abs(k[:, None] - k)) @ x


def rotary(x):
    angle = jnp.arange(x.shape[0])[:, None] / 10.0
    a, b = x[:, :1], x[:, 1:2]
    turned = [a * jnp.cos(angle) - b * jnp.sin(angle), a * jnp.sin(angle) + b * jnp.cos(angle)]
    y = jnp.concatenate([*turned, x[:, 2:]], -1)
    return y @ y.T


PROGRAMS = {
    "linear": Row(lambda x, w: x @ w + w[0]),
    "gram_over_time": Row(lambda x: x.T @ x),
    "gram_over_features": Row(lambda x: x @ x.T),
    "attention": Row(attention),
    "causal_attention": Row(causal),
    "windowed_attention": Row(windowed),
    "multi_head_attention": Row(multi_head),
    "cross_attention": Row(cross, second=True),
    "dot_product_attention": Row(
        lambda x: jax.nn.dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]
    ),
    "dot_product_attention_causal": Row(
        lambda x: jax.nn.dot_product_attention(x[:, None], x[:, None], x[:, None], is_causal=True)[
            :, 0
        ]
    ),
    "relative_position_bias": Row(relative_bias),
    "alibi": Row(alibi),
    "rotary": Row(rotary),
    "distances": Row(distances),
    "outer": Row(lambda x: jnp.outer(x[:, 0], x[:, 1])),
    "outer_with_another": Row(lambda x, z: x[:, None] * z[None], second=True),
    "sum_of_an_outer": Row(lambda x, z: (x[:, None] * z[None]).sum(0), second=True),
    "einsum_bilinear": Row(lambda x, w: jnp.einsum("td,de,se->ts", x, w, x)),
    "linear_attention": Row(lambda x: jnp.exp(x) @ (jnp.exp(x).T @ x)),
    "trace": Row(lambda x: jnp.trace(x @ x.T)),
    "diagonal": Row(lambda x: jnp.diagonal(x @ x.T)),
    "identity_plus": Row(lambda x: jnp.eye(x.shape[0]) + x @ x.T),
    "upper_triangle": Row(lambda x: jnp.triu(x @ x.T, 1).sum(0)),
    "power_of_a_matrix": Row(lambda x: (x @ x.T / 9) @ (x @ x.T / 9) @ x),
    "bilinear_pool": Row(lambda x, w: jnp.einsum("td,te,de->", x, x, w)),
    "batched_product": Row(lambda x: jnp.einsum("tij,tj->ti", x[:, :, None] * x[:, None, :], x)),
    "sum_of_products": Row(lambda x: jnp.vdot(x, x)),
    "tensordot": Row(lambda x: jnp.tensordot(x, x, axes=((0, 1), (0, 1)))),
    "cross_of_sums": Row(lambda x, z: x.sum(0) * z.mean(0), second=True),
    "max_of_cross_scores": Row(lambda x, z: (x @ z.T).max(1), second=True),
}
