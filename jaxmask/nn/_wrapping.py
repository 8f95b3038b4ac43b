"""What wrappers share: one layer inside or a stack of them, in a call and chunk by chunk."""

from typing import Any, Unpack

from jaxmask import _check
from jaxmask._types import Mask, Pair, PyTree
from jaxmask.nn import _join as join
from jaxmask.nn import _streaming as streaming
from jaxmask.nn._base import MaskedModule
from jaxmask.nn._options import CallOptions, Given, opened


class Wrapper(MaskedModule):
    """A wrapper around one layer, which streams if the layer does."""

    layer: Any

    def _inside(self) -> Any:
        """The layer, or what runs instead of it."""
        return self.layer

    def _after(self, x: Any, mask: Mask, pair: Pair) -> Pair:
        """The result, given the pair that the layer made of `x` and `mask`."""
        return pair

    def __call__(
        self, x: Any, mask: Mask = None, **options: Unpack[CallOptions]
    ) -> tuple[Any, Mask]:
        """Run the layer and return `(y, mask)`; options as in `Sequential`."""
        model, given = opened(self, options)
        pair = join.call(model._inside(), x, mask, at=type(self).__name__, given=given)
        return model._after(x, mask, pair)

    def initial_carry(self, batch: int, **options: Unpack[CallOptions]) -> PyTree:
        """What `run` starts from: the carry of the layer."""
        model, given = opened(self, options)
        return streaming.initial_carry(model.layer, batch, at=type(self).__name__, given=given)

    def run(
        self, carry: PyTree, x: Any, mask: Mask = None, **options: Unpack[CallOptions]
    ) -> tuple[PyTree, Pair]:
        """Run the layer on the next chunk of steps and return `(carry, (y, mask))`."""
        model, given = opened(self, options)
        at = type(self).__name__
        carry, pair = streaming.run(model._inside(), carry, x, mask, at=at, given=given)
        return carry, model._after(x, mask, pair)


class Stack(MaskedModule):
    """Layers in order, each on what the one before it made."""

    layers: Any
    on_unsupported: str = "error"

    def _before(self, x: Any, mask: Mask) -> tuple[Any, Mask]:
        """The pair that came in, checked."""
        return x, mask

    def _after(
        self, position: int, x: Any, mask: Mask, pair: tuple[Any, Mask], given: Given
    ) -> tuple[Any, Mask]:
        """The input of the next layer, given the pair that this one made of `x` and `mask`."""
        return pair

    def _at(self, position: int) -> str:
        return f"{type(self).__name__}: layer {position}"

    def __call__(
        self, x: Any, mask: Mask = None, **options: Unpack[CallOptions]
    ) -> tuple[Any, Mask]:
        """Run the layers and return `(y, mask)`; options as in `Sequential`."""
        x, mask = self._before(x, mask)
        model, given = opened(self, options)
        policy = self.on_unsupported
        for position, layer in enumerate(model.layers):
            at = self._at(position)
            pair = join.call(layer, x, mask, at=at, on_unsupported=policy, given=given)
            x, mask = model._after(position, x, mask, pair, given)
        return x, mask

    def initial_carry(self, batch: int, **options: Unpack[CallOptions]) -> tuple[PyTree, ...]:
        """What `run` starts from: a tuple with the carry of each layer."""
        model, given = opened(self, options)
        return tuple(
            streaming.initial_carry(layer, batch, at=self._at(position), given=given)
            for position, layer in enumerate(model.layers)
        )

    def run(
        self, carry: tuple[PyTree, ...], x: Any, mask: Mask = None, **options: Unpack[CallOptions]
    ) -> tuple[tuple[PyTree, ...], Pair]:
        """Run the layers on the next chunk of steps and return `(carry, (y, mask))`."""
        x, mask = self._before(x, mask)
        _check_carries(carry, len(self.layers), type(self).__name__)
        model, given = opened(self, options)
        after = []
        for position, (layer, held) in enumerate(zip(model.layers, carry, strict=True)):
            at = self._at(position)
            held, pair = streaming.run(layer, held, x, mask, at=at, given=given)
            x, mask = model._after(position, x, mask, pair, given)
            after.append(held)
        return tuple(after), (x, mask)


def _check_carries(carry: Any, layers: int, where: str) -> None:
    """The carry of a stack of layers: a tuple with one entry per layer."""
    if not isinstance(carry, tuple) or len(carry) != layers:
        raise ValueError(
            f"{where}: `carry` must be a tuple with one entry for each of the {layers} layers, as "
            f"`initial_carry(batch)` makes it, got {_check.kind_of(carry)}."
        )
