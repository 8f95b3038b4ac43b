"""Keras's recurrent layers and the wrappers around layers."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmask import nn
from jaxmask.interop import _keras_cells as cells
from jaxmask.interop._keras_joints import Recurrence
from jaxmask.interop._keras_layers import ZEROS, function_of
from jaxmask.interop._keras_parts import (
    KerasContext,
    Part,
    array,
    built,
    converts,
    is_of_keras,
    named,
    options,
    put,
    require,
    streams,
)

_CELLS = {"LSTMCell": cells.LSTMCell, "GRUCell": cells.GRUCell, "SimpleRNNCell": cells.SimpleCell}
_LAYERS = {"LSTMCell": nn.LSTM, "GRUCell": nn.GRU, "SimpleRNNCell": nn.SimpleRNN}
LOST_STATE = (
    "Keras ignores the mask of the input once `initial_state=` is given; here it is applied"
)
BACKWARD = "Keras returns the mask unreversed with the reversed outputs; here both are reversed"


def weights_of(cell: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`w_x`, `w_h` and `b` of a cell in the layout of `jaxmask.nn`; zeros for a bias left out."""
    w_x, w_h = array(cell.kernel), array(cell.recurrent_kernel)
    if cell.bias is None:
        two = type(cell).__name__ == "GRUCell" and cell.reset_after
        b = np.zeros((2, w_x.shape[1]) if two else w_x.shape[1:], w_x.dtype)
    else:
        b = array(cell.bias)
    if type(cell).__name__ != "GRUCell":
        return w_x, w_h, b
    w_x, w_h, b = (swapped(weight) for weight in (w_x, w_h, b))
    return w_x, w_h, b


def swapped(weight: np.ndarray) -> np.ndarray:
    """The gates z, r, n as r, z, n, and vice versa."""
    z, r, n = np.split(weight, 3, axis=-1)
    return np.concatenate([r, z, n], axis=-1)


class _Cell:
    """One cell of a layer, checked; `make` gives it a layer of its own."""

    def __init__(self, cell: Any, at: KerasContext):
        self.kind = type(cell).__name__
        require(
            is_of_keras(cell, "layers.rnn") and self.kind in _CELLS,
            f"its cell is {named(cell)}; supported are {', '.join(_CELLS)} and StackedRNNCells.",
        )
        self.cell = cell
        self.activation = function_of(cell.activation)
        self.gate = function_of(getattr(cell, "recurrent_activation", None) or cell.activation)
        gate = "tanh" if self.kind == "SimpleRNNCell" else "sigmoid"
        names = cell.activation.__name__, getattr(self.gate, "__name__", "")
        known = ("tanh", "relu") if self.kind == "SimpleRNNCell" else ("tanh",)
        self.is_plain = names[0] in known and (gate == "tanh" or names[1] == gate)
        if cell.bias is None:
            at.notes.append("it gets a bias of zeros, which training changes")
        if cell.recurrent_dropout:
            at.differs.append("its `recurrent_dropout` is dropped, which matters in training only")
        if cell.dropout and getattr(cell, "implementation", 2) == 1:
            at.notes.append("its dropout draws once for all gates, not once for each")
        require(cell.dropout < 1, "its `dropout` is 1, which drops everything.")

    def words(self) -> str:
        layer = f"jm.nn.{_LAYERS[self.kind].__name__}" if self.is_plain else "jm.nn.RNN"
        return f"jm.nn.SpatialDropout, {layer}" if self.cell.dropout else layer

    def make(self, *, return_sequences: bool, reverse: bool) -> list[Any]:
        """The dropout of its inputs, if there is one, and the layer."""
        way = {"return_sequences": return_sequences, "reverse": reverse}
        before = [nn.SpatialDropout(self.cell.dropout, rngs=streams())] if self.cell.dropout else []
        return [*before, self._plain(way) if self.is_plain else self._free(way)]

    def _plain(self, way: dict[str, bool]) -> Any:
        weights = weights_of(self.cell)
        inits = dict.fromkeys(("kernel_init", "recurrent_kernel_init", "bias_init"), ZEROS)
        more: dict[str, Any] = {**way, **inits, **options(self.cell)}
        if self.kind == "GRUCell":
            more["reset_after"] = self.cell.reset_after
        if self.kind == "SimpleRNNCell":
            more["activation"] = self.cell.activation.__name__
        layer = _LAYERS[self.kind](weights[0].shape[0], self.cell.units, **more)
        for parameter, value in zip((layer.w_x, layer.w_h, layer.b), weights, strict=True):
            put(parameter, value)
        return layer

    def _free(self, way: dict[str, bool]) -> Any:
        more = {"reset_after": self.cell.reset_after} if self.kind == "GRUCell" else {}
        weights = map(jnp.array, weights_of(self.cell))
        cell = _CELLS[self.kind](self.activation, self.gate, *weights, **more)
        return nn.RNN(cell, **way)  # type: ignore[arg-type]


def _cells_of(layer: Any, at: KerasContext) -> list[_Cell]:
    built(layer)
    require(not layer.stateful, "it is `stateful`. Use `run` of the converted layer for chunks.")
    if layer.zero_output_for_mask and not layer.return_sequences:
        at.differs_under_mask(
            "with `zero_output_for_mask` Keras returns 0 as the last output of a padded row; here "
            "it is the output at the last real step"
        )
    cell = layer.cell
    is_stack = is_of_keras(cell, "layers.rnn") and type(cell).__name__ == "StackedRNNCells"
    return [_Cell(inside, at) for inside in (cell.cells if is_stack else [cell])]


def _chain(found: list[_Cell], return_sequences: bool, reverse: bool) -> list[Any]:
    """A layer for each cell; all but the last return every step."""
    layers: list[Any] = []
    for cell in found:
        every = return_sequences or cell is not found[-1]
        layers += cell.make(return_sequences=every, reverse=reverse)
    return layers


def _words(found: list[_Cell]) -> str:
    return ", ".join(cell.words() for cell in found)


def _set_output_mask(layer: Any, at: KerasContext) -> None:
    """Set the mask on the result, which Keras passes on up to 3.15."""
    if not layer.return_sequences:
        at.to_rows()
        return
    text = (
        "Keras up to 3.15 passes the mask on but 3.16 and later do not, so the layers after it "
        "read padding; here the mask is kept, as the model intends"
    )
    if passes_mask_on(layer):
        at.notes.append(text)
    else:
        at.differs_under_mask(text)


def passes_mask_on(layer: Any) -> bool:
    """Whether this version of Keras gives the result of the layer a mask."""
    if not layer.supports_masking:
        return False
    mask = layer.compute_mask(None, np.ones((1, 1), bool))
    while isinstance(mask, list | tuple):
        mask = mask[0]
    return mask is not None


@converts("LSTM", "GRU", "SimpleRNN", "RNN")
def _rnn(layer: Any, at: KerasContext) -> Part:
    found = _cells_of(layer, at)
    _set_output_mask(layer, at)
    if layer.go_backwards and layer.return_sequences:
        at.differs_under_mask(BACKWARD)
    states = at.call is not None and len(_tensors(at)) > 1
    if states or layer.return_state:
        return _with_states([(layer, found)], layer, None, at)
    flips = layer.go_backwards and layer.return_sequences

    def make() -> tuple[Any, ...]:
        layers = _chain(found, layer.return_sequences, layer.go_backwards)
        return (*layers, nn.Flip()) if flips else tuple(layers)

    return Part(_words(found) + (", jm.nn.Flip" if flips else ""), make)


def _tensors(at: KerasContext) -> list[Any]:
    """The input and the initial states of a call, those that are tensors."""
    assert at.call is not None
    given = [*at.call.args, at.call.kwargs.get("initial_state")]
    flat: list[Any] = []
    for value in given:
        flat += value if isinstance(value, list | tuple) else [value]
    return [value for value in flat if hasattr(value, "_keras_history")]


@converts("Bidirectional")
def _bidirectional(layer: Any, at: KerasContext) -> Part:
    forward, backward = layer.forward_layer, layer.backward_layer
    for direction in (forward, backward):
        require(
            is_of_keras(direction, "layers.rnn") and hasattr(direction, "cell"),
            f"it runs {named(direction)}, which is not a recurrent layer.",
        )
    require(not forward.go_backwards, "its forward layer has `go_backwards=True`.")
    both = [(inside, _cells_of(inside, at)) for inside in (forward, backward)]
    _set_output_mask(layer, at)
    states = at.call is not None and len(_tensors(at)) > 1
    if states or layer.return_state:
        return _with_states(both, layer, layer.merge_mode, at)
    every = layer.return_sequences

    def make() -> tuple[Any, ...]:
        chains = [_chain(found, every, reverse=False) for _, found in both]
        ahead, back = (c[0] if len(c) == 1 else nn.Sequential(*c) for c in chains)
        return (nn.Bidirectional(ahead, back, layer.merge_mode),)

    inside = " and ".join(_words(found) for _, found in both)
    return Part(f"jm.nn.Bidirectional({inside})", make)


def _with_states(
    ways: list[tuple[Any, list[_Cell]]], layer: Any, merge: str | None, at: KerasContext
) -> Part:
    """A layer that takes initial states or returns final ones."""
    require(
        at.call is not None,
        "it returns its states. Convert the functional model that contains it, or use "
        "`run(carry, x, mask)` of the layer converted with `return_state=False`.",
    )
    require(
        all(len(found) == 1 for _, found in ways),
        "it takes or returns states and has several cells.",
    )
    require(
        all(found[0].is_plain for _, found in ways),
        "it takes or returns states and has custom activations.",
    )
    require(merge is not None or len(ways) == 1, "it returns states with `merge_mode=None`.")
    given = len(_tensors(at)) - 1
    wanted = sum(2 if found[0].kind == "LSTMCell" else 1 for _, found in ways)
    require(given in (0, wanted), "some initial states are not tensors of the model.")
    if given:
        at.differs_under_mask(LOST_STATE)

    def make() -> tuple[Any, ...]:
        made = [
            found[0].make(return_sequences=True, reverse=inside.go_backwards)
            for inside, found in ways
        ]
        options = {"return_sequences": layer.return_sequences, "return_state": layer.return_state}
        return (Recurrence([m[-1] for m in made], [m[:-1] for m in made], merge, **options),)

    words = " and ".join(_words(found) for _, found in ways)
    return Part(f"{words} with states", make)


@converts("TimeDistributed")
def _time_distributed(layer: Any, at: KerasContext) -> Part:
    path = f"{at.path}.{layer.layer.name}" if at.path else layer.layer.name
    inside, mask_out = at.plan(layer.layer, path)
    at.mask_out = "steps" if mask_out else at.mask
    if mask_out:
        at.differs.append("Keras loses the masks that the inner layer makes; here they are kept")
    return Part("jm.nn.TimeDistributed", _distribute, (inside,))


def _distribute(made: tuple[Any, ...]) -> tuple[Any, ...]:
    return (nn.TimeDistributed(made[0] if len(made) == 1 else nn.Sequential(*made)),)
