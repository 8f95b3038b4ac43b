"""Layers of Google's SequenceLayers, each of which takes values and their mask as one `Sequence`.

    python -m pip install --no-deps sequence_layers==0.2 einops orbax-export recurrentgemma \\
        sentencepiece typeguard==2.13.3

It is in no extra, since it would fix the versions of what others need.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from tests.field import MASK, Subject, X

GROUP = "SequenceLayers"


def _layer(config: Callable, *, training: bool = False) -> Callable:
    def make() -> Any:
        import sequence_layers.jax as sl

        layer = config(sl).make()
        given = sl.Sequence(jnp.asarray(X), jnp.asarray(MASK))
        params = layer.init(jax.random.key(0), given, training=training)

        def function(params: Any, x: Any, mask: Any) -> Any:
            y, _ = layer.apply(
                params, sl.Sequence(x, mask), training=training, mutable=["batch_stats"]
            )
            return y.values, y.mask

        return function, X, params

    return make


def subjects() -> Iterator[Subject]:
    """The layers."""
    of_all = {"max_past_horizon": -1, "max_future_horizon": -1}
    yield Subject("`Dense`", GROUP, _layer(lambda sl: sl.Dense.Config(4)))
    yield Subject("`LayerNormalization`", GROUP, _layer(lambda sl: sl.LayerNormalization.Config()))
    yield Subject(
        "`BatchNormalization`, training",
        GROUP,
        _layer(lambda sl: sl.BatchNormalization.Config(), training=True),
    )
    yield Subject(
        "`Conv1D`, same", GROUP, _layer(lambda sl: sl.Conv1D.Config(4, 3, padding="same"))
    )
    yield Subject(
        "`MaxPooling1D`, same", GROUP, _layer(lambda sl: sl.MaxPooling1D.Config(2, padding="same"))
    )
    yield Subject("`LSTM`", GROUP, _layer(lambda sl: sl.LSTM.Config(4)))
    yield Subject(
        "`DotProductSelfAttention`",
        GROUP,
        _layer(
            lambda sl: sl.DotProductSelfAttention.Config(num_heads=2, units_per_head=2, **of_all)
        ),
    )
