"""Orders, and solutions of systems."""

import jax
import jax.numpy as jnp

from tests.ragged.alone import Row, integers, spaced


def kernel(x):
    return jnp.exp(-((x[:, None] - x[None]) ** 2).sum(-1)) + 0.1 * jnp.eye(x.shape[0])


PLAIN = {
    "sort": lambda x: jnp.sort(x, axis=0),
    "sort_descending": lambda x: jnp.sort(x, axis=0, descending=True),
    "sort_features": lambda x: jnp.sort(x, axis=1),
    "argsort": lambda x: jnp.argsort(x, axis=0),
    "rank": lambda x: jnp.argsort(jnp.argsort(x, axis=0), axis=0),
    "median": lambda x: jnp.median(x, axis=0),
    "quantile": lambda x: jnp.quantile(x, 0.3, axis=0),
    "top_1": lambda x: jax.lax.top_k(x.T, 1),
    "top_of_features": lambda x: jax.lax.top_k(x, 2),
    "lexsort": lambda x: jnp.lexsort((x[:, 0], jnp.round(x[:, 1]))),
    "sort_two": lambda x: jax.lax.sort((x[:, 0], x[:, 1]), num_keys=1),
    "sorted_mean_of_the_middle": lambda x: jnp.sort(x, 0)[x.shape[0] // 4 :].mean(0),
}


def interpolated(x):
    xs, ys = jnp.cumsum(1 + x[:, 0] ** 2), x[:, 1]
    k = jnp.clip(jnp.sum(xs < 2.5), 1, xs.shape[0] - 1)
    return ys[k - 1] + (2.5 - xs[k - 1]) * (ys[k] - ys[k - 1]) / (xs[k] - xs[k - 1])


PROGRAMS = {
    **{name: Row(f, domain=spaced) for name, f in PLAIN.items()},
    "top_2": Row(lambda x: jax.lax.top_k(x.T, 2)[0], domain=spaced, min_length=2),
    "sort_integers": Row(lambda x: jnp.sort(x, 0), domain=integers),
    "stable_order_of_ties": Row(lambda x: jnp.argsort(x, 0), domain=integers),
    "cholesky": Row(lambda x: jnp.linalg.cholesky(kernel(x))),
    "triangular_solve": Row(
        lambda x: jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(kernel(x)), x, lower=True)
    ),
    "gaussian_process": Row(
        lambda x: kernel(x) @ jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(kernel(x)), True), x)
    ),
    "log_determinant": Row(
        lambda x: jnp.log(jnp.diagonal(jnp.linalg.cholesky(kernel(x)))).sum() * 2
    ),
    "solve": Row(lambda x: jnp.linalg.solve(kernel(x) + jnp.sin(x @ x[::-1].T) / 5, x), rtol=2e-4),
    "inverse": Row(lambda x: jnp.linalg.inv(kernel(x)) @ x),
    "determinant": Row(lambda x: jnp.linalg.slogdet(kernel(x))[1]),
    "conjugate_gradients": Row(
        lambda x: jax.scipy.sparse.linalg.cg(lambda v: kernel(x) @ v, x[:, 0], tol=1e-7)[0],
        rtol=3e-4,
    ),
    "searchsorted_by_counting": Row(
        lambda x: jnp.sum(jnp.sort(x[:, 0])[:, None] < x[:, 1], axis=0), domain=spaced
    ),
    "interp_by_counting": Row(interpolated, min_length=2),
    "permutation_by_sorting": Row(
        lambda x: x[jnp.argsort(jax.random.uniform(jax.random.key(0), x.shape[:1]))]
    ),
}
