"""A conditional random field, the last layer of a tagger."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, decoding, losses
from jaxmask._errors import refusing_pairs
from jaxmask._types import ArrayLike, Mask, Pair
from jaxmask.nn._base import MaskedModule


class CRF(MaskedModule):
    """Linear-chain conditional random field, with learned scores of transitions between tags.

    Train on `loss`, and decode by calling the module.

    Attributes:
      transitions: `nnx.Param` `[num_tags, num_tags]`, from the row's tag to the column's.
      start: `nnx.Param` `[num_tags]`, how well a row begins with a tag.
      end: `nnx.Param` `[num_tags]`, how well a row ends with a tag.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> crf = jm.nn.CRF(2, rngs=nnx.Rngs(0))
      >>> logits = jnp.array([[[9.0, 0.0], [0.0, 9.0], [0.0, 9.0]]])
      >>> mask = jnp.array([[True, True, False]])
      >>> crf(logits, mask)[0].tolist()
      [[0, 1, 0]]
      >>> per_row, row_mask = crf.loss(logits, mask, jnp.array([[0, 1, -100]]))
      >>> bool(per_row[0] < 0.01), row_mask.tolist()
      (True, [True])

    Source: Lafferty, McCallum and Pereira, 2001; Lample et al., 2016, arXiv:1603.01360.
    """

    def __init__(
        self,
        num_tags: int,
        *,
        transition_init: nnx.Initializer = nnx.initializers.zeros,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.num_tags = _check.count(num_tags, "CRF", "num_tags", least=1)
        shapes = {"transitions": (num_tags, num_tags), "start": (num_tags,), "end": (num_tags,)}
        for name, shape in shapes.items():
            setattr(self, name, nnx.Param(transition_init(rngs.params(), shape, param_dtype)))

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Find the best path: `jaxmask.decoding.viterbi` of the logits `x [batch, time, tags]`."""
        return decoding.viterbi(x, mask, **self._weights())

    def n_best(self, logits: ArrayLike, mask: Mask, n_best: int) -> tuple[Pair, Pair]:
        """The best paths and their scores: `jaxmask.decoding.viterbi` with `n_best`."""
        return decoding.viterbi(logits, mask, n_best=n_best, **self._weights())

    @refusing_pairs
    def loss(self, logits: ArrayLike, mask: Mask, tags: ArrayLike) -> Pair:
        """Negative log likelihood of the tags of each row: `jaxmask.losses.crf`."""
        return losses.crf(logits, mask, tags, **self._weights())

    def marginals(self, logits: ArrayLike, mask: Mask = None) -> Pair:
        """Probability of each tag at each step: `jaxmask.decoding.crf_marginals`."""
        return decoding.crf_marginals(logits, mask, **self._weights())

    def _weights(self) -> dict[str, Any]:
        return {name: getattr(self, name)[...] for name in ("transitions", "start", "end")}
