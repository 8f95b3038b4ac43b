"""Spectral normalisation of the weights of any layer; masks pass through it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check
from jaxmask._sums import accumulator
from jaxmask._types import Array
from jaxmask.nn._wrapping import Wrapper


class SpectralNorm(Wrapper):
    """Run a layer with each of its weight matrices divided by its largest singular value.

        sigma = v W u,   W' = W / sigma

    with u and v from power iteration, which continues from call to call in training. The layer
    keeps its own weights and runs with a normalised copy. Padding and mask are up to the layer. A
    layer that streams still does, in eval mode: in training each chunk would iterate again.

    Args:
      layer: a module that `Sequential` takes. Parameters with more than two axes are flattened to
        a matrix with the last axis as it is; vectors stay as they are.
      n_steps: power iterations a call, at least 1.
      epsilon: keeps the norms of u and v above 0.
      use_running_average: keep u as it is; `model.eval()` sets it.
      rngs: source of the `params` random stream.

    Raises:
      MaskError: on call, if the layer gets a mask and does not support masks; on `run`, if it is
        not causal.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> rngs = nnx.Rngs(0)
      >>> layer = jm.nn.SpectralNorm(nnx.Linear(3, 2, rngs=rngs), rngs=rngs)
      >>> y, mask = layer(jnp.ones((1, 2, 3)), jnp.array([[True, False]]))
      >>> y[0, 1].tolist(), mask.tolist()
      ([0.0, 0.0], [[True, False]])

    Source: Miyato et al., 2018, arxiv.org/abs/1802.05957. Agrees with `flax.nnx.SpectralNorm`,
    which overwrites the weights of the layer.
    """

    def __init__(
        self,
        layer: Callable[..., Any],
        *,
        n_steps: int = 1,
        epsilon: float = 1e-12,
        use_running_average: bool = False,
        rngs: nnx.Rngs,
    ):
        if not isinstance(layer, nnx.Module):
            raise TypeError(
                f"SpectralNorm: `layer` must be a module with weights, got {_check.kind_of(layer)}."
            )
        self.layer = layer
        self.n_steps = _check.count(n_steps, "SpectralNorm", "n_steps", least=1)
        self.epsilon = epsilon
        self.use_running_average = use_running_average
        draw = nnx.initializers.normal()
        self.u = nnx.List(
            nnx.BatchStat(draw(rngs.params(), (weight.shape[-1],), accumulator(weight.dtype)))
            for weight in _matrices(jax.tree.leaves(nnx.state(layer, nnx.Param)))
        )

    @property
    def per_step(self) -> bool:  # type: ignore[override]
        """Whether the layer acts on each step alone."""
        return bool(getattr(self.layer, "per_step", False))

    def _inside(self) -> Any:
        """The layer with normalised weights."""
        graph, params, rest = nnx.split(self.layer, nnx.Param, ...)  # type: ignore[misc]
        leaves, tree = jax.tree.flatten(params)
        divided = iter(
            [self._divided(w, u) for w, u in zip(_matrices(leaves), self.u, strict=True)]
        )
        leaves = [next(divided) if leaf.ndim > 1 else leaf for leaf in leaves]
        # Without `copy` the layer's other variables, such as random streams, advance for good.
        return nnx.merge(graph, jax.tree.unflatten(tree, leaves), rest)

    def _divided(self, weight: Array, u: nnx.BatchStat) -> Array:
        wide = accumulator(weight.dtype)
        matrix = weight.reshape(-1, weight.shape[-1]).astype(wide)
        still = jax.lax.stop_gradient(matrix)

        def step(_: int, pair: tuple[Array, Array]) -> tuple[Array, Array]:
            left = self._unit(still @ pair[1])
            return left, self._unit(left @ still)

        left, right = step(0, (still[:, 0], jax.lax.stop_gradient(u[...].astype(wide))))
        if self.n_steps > 1:
            left, right = jax.lax.fori_loop(1, self.n_steps, step, (left, right))
        if not self.use_running_average:
            u[...] = right.astype(u[...].dtype)
        sigma = left @ matrix @ right
        divided = weight.astype(wide) / jnp.where(sigma == 0, 1, sigma).astype(wide)
        return divided.astype(weight.dtype)

    def _unit(self, vector: Array) -> Array:
        return vector * jax.lax.rsqrt(jnp.sum(jnp.square(vector)) + self.epsilon)


def _matrices(leaves: list[Array]) -> list[Array]:
    return [leaf for leaf in leaves if leaf.ndim > 1]
