"""Reductions over the row."""

import jax
import jax.numpy as jnp

from tests.ragged.alone import Row, integers, positive, spaced

PLAIN = {
    "sum": lambda x: x.sum(0),
    "sum_of_all": lambda x: x.sum(),
    "mean": lambda x: x.mean(0),
    "mean_by_hand": lambda x: x.sum(0) / x.shape[0],
    "average_with_weights": lambda x: jnp.average(x, axis=0, weights=jnp.exp(x)),
    "prod": lambda x: x.prod(0),
    "logsumexp": lambda x: jax.nn.logsumexp(x, 0),
    "softmax": lambda x: jax.nn.softmax(x, 0),
    "log_softmax": lambda x: jax.nn.log_softmax(x, 0),
    "norm": lambda x: jnp.sqrt((x**2).sum(0)),
    "norm_of_all": lambda x: jnp.linalg.norm(x),
    "centred": lambda x: x - x.mean(0),
    "layer_norm": lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True)),
    "sum_where": lambda x: jnp.sum(x, axis=0, where=x > 0),
    "mean_where": lambda x: jnp.mean(x, axis=0, where=x > -9),
    "max_where": lambda x: jnp.max(x, axis=0, where=x > 0, initial=-5.0),
    "any_all": lambda x: (jnp.any(x > 0, 0), jnp.all(x > -1, 0)),
    "count": lambda x: jnp.count_nonzero(x > 0, axis=0),
    "sum_of_features": lambda x: x.sum(-1),
    "both_axes_in_turn": lambda x: x.sum(1).max() + x.max(0).sum(),
    "moments": lambda x: ((x - x.mean(0)) ** 3).mean(0),
    "nanmean": lambda x: jnp.nanmean(x, axis=0),
    "nansum": lambda x: jnp.nansum(x, axis=0),
    "mean_of_a_layer": lambda x, w: jax.nn.relu(x @ w).mean(0),
    "linear_attention_pool": lambda x, w: jax.nn.softmax(x @ w[0]) @ x,
    "cosine_with_the_mean": lambda x: x @ x.mean(0),
}
AT_LEAST_TWO = {
    "var": lambda x: x.var(0),
    "std": lambda x: x.std(0),
    "var_unbiased": lambda x: x.var(0, ddof=1),
    "standardised": lambda x: (x - x.mean(0)) / x.std(0),
    "batch_norm": lambda x: (x - x.mean(0)) * jax.lax.rsqrt(x.var(0) + 1e-5),
    "covariance": lambda x: jnp.cov(x, rowvar=False),
    "correlation": lambda x: (x - x.mean(0)).T @ (x - x.mean(0)) / (x.shape[0] - 1),
}
SPACED = {
    "max": lambda x: x.max(0),
    "min": lambda x: x.min(0),
    "peak_to_peak": lambda x: jnp.ptp(x, axis=0),
    "argmax": lambda x: x.argmax(0),
    "argmin": lambda x: x.argmin(0),
    "at_the_argmax": lambda x: x[x[:, 0].argmax()],
    "max_of_all": lambda x: x.max(),
    "max_of_pairs": lambda x: (x[:, None, 0] - x[None, :, 1]).max(1),
}
PROGRAMS = {
    **{name: Row(f) for name, f in PLAIN.items()},
    **{name: Row(f, min_length=2) for name, f in AT_LEAST_TWO.items()},
    **{name: Row(f, domain=spaced) for name, f in SPACED.items()},
    "integers": Row(lambda x: (x.sum(0), x.max(0), x.min(0), x.prod(0)), domain=integers),
    "xor": Row(
        lambda x: (
            jax.lax.reduce_xor_p.bind(x, axes=(0,))
            if hasattr(jax.lax, "reduce_xor_p")
            else x.sum(0)
        ),
        domain=integers,
    ),
    "geometric_mean": Row(lambda x: jnp.exp(jnp.log(x).mean(0)), domain=positive),
    "harmonic_mean": Row(lambda x: x.shape[0] / (1 / x).sum(0), domain=positive),
    "equal_maxima_share_the_gradient": Row(lambda x: (jnp.round(x) + 0 * x).max(0), gradient=False),
    "ties": Row(lambda x: jnp.maximum(x, 0.0).max(0)),
}
