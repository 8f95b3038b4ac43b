"""`mask_flow`: what happens to the mask, layer by layer."""

import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._report import once_fixed
from jaxmask._types import Segments
from jaxmask.report._calls import Call, Ref, Trace, described, is_of_row, names_mask, trace
from jaxmask.report._collapse import lines
from jaxmask.report._inputs import ids_of, is_mask, split_inputs
from jaxmask.report._layer import HEADER, Layer, row
from jaxmask.report._probe import FINITE, PROVED, SEES, Probe, Prober
from jaxmask.report._shown import Drawing, Shown
from jaxmask.report._table import Table


@dataclass(frozen=True)
class MaskFlow(Shown):
    """What happens to the mask in a model; `str()` of it is a table, as is its HTML.

    Attributes:
      model: the class of the model.
      layers: the calls, the model itself first.
      notes: what the numbers are, and what is missing.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 4, 2)), jnp.array([[True, True, True, False]])
      >>> flow = jm.report.mask_flow(jm.nn.DropMask(), x, mask)
      >>> str(flow).splitlines()[0]
      'mask_flow of DropMask: 1 layer'
      >>> flow.missing
      ()
    """

    model: str
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]

    @property
    def missing(self) -> tuple[Layer, ...]:
        """The layers that mix steps without a mask, of layers inside each other the innermost."""
        return self._split(lambda layer: "missing" in layer.words)[0]

    @property
    def guilty(self) -> tuple[Layer, ...]:
        """The layers that let padding in, of layers inside each other the innermost."""
        return self._split(_lets_in)[0]

    @property
    def unjudged(self) -> tuple[Layer, ...]:
        """The layers around guilty ones that let padding in, by those or by their own code."""
        return self._split(_lets_in)[1]

    def _split(self, is_such: Callable[[Layer], bool]) -> tuple[tuple[Layer, ...], ...]:
        """The layers with some property: those with none of them inside, and the others."""
        found: tuple[list[Layer], list[Layer]] = ([], [])
        for place, layer in enumerate(self.layers):
            if is_such(layer):
                found[any(map(is_such, self._inside(place)))].append(layer)
        return tuple(map(tuple, found))

    def _inside(self, place: int) -> Iterator[Layer]:
        depth = self.layers[place].depth
        return itertools.takewhile(lambda layer: layer.depth > depth, self.layers[place + 1 :])

    @property
    def on_padding(self) -> float:
        """The share of the counted arithmetic that was spent on padding."""
        return self.layers[0].on_padding / max(1, self.layers[0].operations)

    def __str__(self) -> str:
        return str(self.table())

    def __rich__(self) -> Any:
        return self.table().rich()

    def html(self) -> str:
        """The table as HTML."""
        return self.table().html()

    def drawing(self) -> Drawing:
        """The table as a picture."""
        return self.table().drawing()

    def table(self) -> Table:
        """What is shown; equal blocks one after another are shown once."""
        rows = [row(line) for line in lines(self.layers)]
        return Table(self._title(), HEADER, rows, self.notes)

    def _title(self) -> str:
        whole, count = self.layers[0], len(self.layers)
        text = f"mask_flow of {self.model}: {count} layer{'s' * (count > 1)}"
        if whole.operations and any(layer.fill is not None for layer in self.layers):
            text += f", {self.on_padding:.0%} of the arithmetic on padding"
        return text + (f", {len(self.missing)} without a mask" if self.missing else "")


def mask_flow(model: Any, *inputs: Any) -> MaskFlow:
    """Show where in a model the mask is made, passed, changed, used, dropped or missing.

    A copy of the model is traced once on the inputs; nothing advances, and only arithmetic that a
    mask depends on is computed. Then each layer that has steps runs alone, on random values: does a
    step see another, and does a real step see what padding holds? Where no run shows that it does,
    `jm.leak.prove` is asked about the values. Equal layers are tried once. Layers are modules;
    functions between them are seen by what they do to the mask.

    Arithmetic is counted in the traced program: two operations for each product and sum of a
    matrix product or convolution, one for each entry of other results, nothing for what only moves
    values. Each operation is charged to padding by the share of padded steps in its layer, also in
    attention, which wastes more. Turns of a loop that the data decide (such as jaxmask's recurrent
    engine, which leaves padding out) count once and not as padding. Memory is that of outputs.
    Layers inside `RaggedVmap` run on one row of any length, and are counted where its rows are.

    Args:
      model: an `nnx.Module`, of jaxmask or not.
      *inputs: what it is called with. If the last is a mask that the model does not take, it says
        what is padding in a model that knows of none.

    Returns:
      A `MaskFlow`.

    Raises:
      TypeError: if `model` is not a module that can be called, or does not take so many inputs.
      MaskError: if a mask belongs to no input, or marks nothing as real.
      Exception: what the model raises, with a note that says in which layer.

    Example:
      >>> import jaxmask as jm
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> model = jm.nn.Sequential(jm.nn.Embed(9, 4, rngs=rngs), jm.nn.GlobalMeanPool())
      >>> flow = jm.report.mask_flow(model, *jm.pad_sequences([[7, 8, 5], [5]]))
      >>> for layer in flow.layers:
      ...     print(layer.name, layer.outputs, *layer.words)
      Sequential float32[2,4], bool[2] used changed
      Embed float32[2,3,4], bool[2,3] passed
      GlobalMeanPool float32[2,4], bool[2] used changed
    """
    inputs, outside = split_inputs(model, inputs)
    traced = trace(model, inputs)
    flow = _Flow(traced, outside, _steps_are_numbers(inputs))
    flow.run(traced.calls[0], _Scope(outside, live=False))
    layers = tuple(flow.layers[call.number] for call in traced.calls)
    shown = MaskFlow(type(model).__name__, layers, ())
    of_rows = (OF_ROWS,) if any(map(is_of_row, traced.calls)) else ()
    return replace(shown, notes=(*_notes(shown, flow.any_mask), *of_rows))


@dataclass
class _Scope:
    """The mask where the program is; `live`: whether the program itself has it."""

    mask: Any
    live: bool


class _Flow:
    def __init__(self, traced: Trace, outside: Any, steps_are_numbers: bool):
        self.traced, self.values = traced, traced.values
        self.layers: dict[int, Layer] = {}
        self.any_mask = outside is not None
        self._least = 2 if steps_are_numbers else 3  # rank of floating arrays that have steps
        self._prober = Prober(traced.values)

    def run(self, call: Call, scope: _Scope) -> None:
        """Fill in the layers inside, then this one; leave the mask after it in `scope`."""
        given, others, takes = _given(call)
        of_steps = given is not None and given.ndim <= 2  # attention masks have more axes
        before = given if of_steps else scope.mask
        self._take_for_same(before, scope.mask)
        is_live = scope.live if given is None else True
        inner = _Scope(before, is_live and not (takes and given is None))
        for inside in call.inside:
            self.run(inside, inner)
        is_pair, returned = _returned(call, takes)
        self._take_for_same(returned, before)
        x = self._with_steps(call, before)
        probe = self._probe(call, x, before, given, returned)
        comes_by = x is not None or self._fits(call.args, before)
        words = self._words(given, others, is_pair, returned, probe, scope.live, comes_by)
        after = self._after(scope, is_pair, returned, given)
        self.any_mask |= given is not None or returned is not None
        self.layers[call.number] = self._layer(call, words, before, after.mask, probe)
        scope.mask, scope.live = after.mask, after.live

    def _with_steps(self, call: Call, mask: Any) -> Any:
        """The first argument that has steps; without a mask those of rank 3 have."""
        for leaf in _arrays((call.args, call.kwargs)):
            if leaf is not ids_of(mask) and not is_mask(leaf) and self._has_steps(leaf, mask):
                return leaf
        return None

    def _has_steps(self, leaf: Any, mask: Any) -> bool:
        least = self._least if _is_float(leaf) else 2
        if mask is None:
            return leaf.ndim == 3
        return mask.ndim == 2 and leaf.shape[:2] == mask.shape and leaf.ndim >= least

    def _probe(self, call: Call, x: Any, before: Any, given: Any, returned: Any) -> Probe:
        if x is None or (given is None and returned is not None):
            return Probe()
        marks = self._marks(before)
        if marks is None:
            marks = np.ones(x.shape[:2], bool)
        return self._prober.probe(call, x, marks)

    def _words(
        self,
        given: Any,
        others: bool,
        is_pair: bool,
        returned: Any,
        probe: Probe,
        is_live: bool,
        comes_by: bool,
    ) -> tuple[str, ...]:
        if given is None and returned is not None:
            return ("made",)
        if given is None and probe.mixes:
            return ("missing",)
        if given is None:
            return ("passed" if is_live else "not needed",) if comes_by else ()
        used = ("used",) if probe.mixes or others or not is_pair else ()
        if is_pair and returned is None:
            return (*used, "dropped")
        if is_pair:
            return (*used, "passed" if self._same(given, returned) else "changed")
        return used

    def _after(self, scope: _Scope, is_pair: bool, returned: Any, given: Any) -> _Scope:
        if returned is not None:
            return _Scope(returned, True)
        if given is not None and is_pair:
            return _Scope(given, False)  # the padding is still there, the mask is not
        return scope

    def _take_for_same(self, mask: Any, outside: Any) -> None:
        """Within a loop or `remat`, a mask of the same shape is taken to be the one outside."""
        if mask is None or outside is None or mask.shape != outside.shape:
            return
        ids, marks = ids_of(mask), self._marks(outside)
        if isinstance(ids, Ref) and ids.number < 0 and marks is not None:
            self.values.setdefault(ids.number, marks)

    def _fits(self, values: Any, mask: Any) -> bool:
        """Whether any array has the axes of the mask."""
        return mask is not None and any(
            self._has_steps(leaf, mask) if mask.ndim == 2 else leaf.shape[: mask.ndim] == mask.shape
            for leaf in _arrays(values)
        )

    def _same(self, one: Any, two: Any) -> bool:
        if ids_of(one) is ids_of(two):
            return True
        a, b = self._marks(one), self._marks(two)
        if one.shape != two.shape or a is None or b is None:
            return False
        return type(one) is type(two) and bool(np.array_equal(a, b))

    def _marks(self, mask: Any) -> np.ndarray | None:
        """The values of a mask, or of ids; None within a loop, where it has many."""
        ids = ids_of(mask)
        if isinstance(ids, Ref):
            return self.values.get(ids.number)
        return None if ids is None or isinstance(ids, jax.ShapeDtypeStruct) else np.asarray(ids)

    def _fill(self, mask: Any) -> float | None:
        marks = self._marks(mask)
        return None if marks is None else float((marks > 0).mean())

    def _layer(
        self, call: Call, words: tuple[str, ...], before: Any, after: Any, probe: Probe
    ) -> Layer:
        fill_after = self._fill(after) if self._fits(call.out, after) else None
        is_charged = call.is_in_loop or self._fits((call.args, call.kwargs), before)
        fill_before = self._fill(before) if is_charged else None
        counted = self.traced.operations
        own = counted.of_layer[call.number]
        loops = call.number in counted.open_ended
        fill = next((f for f in (fill_before, fill_after) if f is not None), 1.0)
        inside = [self.layers[c.number] for c in call.inside]
        size, padding = self._memory(call, after, fill_after)
        return Layer(
            path=call.path,
            name=call.name,
            depth=_depth(call),
            inputs=_described((call.args, call.kwargs)),
            outputs=_described(call.out),
            words=words,
            fill=fill_after,
            operations=own + sum(layer.operations for layer in inside),
            on_padding=(0 if loops else own * (1 - fill)) + sum(i.on_padding for i in inside),
            loops=loops or any(layer.loops for layer in inside),
            bytes=size + sum(layer.bytes for layer in inside),
            bytes_of_padding=padding + sum(layer.bytes_of_padding for layer in inside),
            verdict=probe.verdict,
            place=probe.place or call.place,
        )

    def _memory(self, call: Call, after: Any, fill: float | None) -> tuple[int, float]:
        """Bytes of the outputs and of the padding in them; a container's are those inside it.

        What a layer gives for one row, of any length, is counted where the rows are a batch again.
        """
        if is_of_row(call) or (call.inside and not all(map(is_of_row, call.inside))):
            return 0, 0.0
        size, padding = 0, 0.0
        for leaf in _arrays(call.out):
            bytes_ = int(np.prod(leaf.shape)) * leaf.dtype.itemsize
            size += bytes_
            if after is not None and fill is not None and leaf.shape[: after.ndim] == after.shape:
                padding += bytes_ * (1 - fill)
        return size, padding


OF_ROWS = (
    "Layers inside `RaggedVmap` run on one row without padding: what they compute and give is "
    "counted at `RaggedVmap`."
)


def _depth(call: Call) -> int:
    return 0 if call.parent is None else 1 + _depth(call.parent)


def _given(call: Call) -> tuple[Any, bool, bool]:
    """The first mask that a layer gets, whether it gets others, and whether it takes any."""
    named = [value for name, value in call.names.items() if names_mask(name)]
    takes = any(map(names_mask, inspect.signature(type(call.layer).__call__).parameters))
    masks = [value for value in (*named, *call.args) if is_mask(value)]
    masks += [value for value in _arrays(named) if _is_float(value) and value.ndim > 2]
    return (masks[0] if masks else None), len({id(ids_of(mask)) for mask in masks}) > 1, takes


def _returned(call: Call, takes: bool) -> tuple[bool, Any]:
    """Whether a layer returns a pair, also behind a carry, and the mask in it."""
    out = call.out
    while isinstance(out, tuple) and len(out) == 2:
        if is_mask(out[1]) or (out[1] is None and takes):
            return True, out[1]
        out = out[1]
    return False, None


def _steps_are_numbers(inputs: Any) -> bool:
    """Whether a floating input `[batch, time]` has no features; any other such array is of rows."""
    return any(leaf.ndim == 2 and _is_float(leaf) for leaf in _arrays(inputs))


def _is_float(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def _arrays(values: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(values) if hasattr(leaf, "dtype")]


def _described(values: Any) -> str:
    leaves = jax.tree.leaves(values, is_leaf=lambda value: isinstance(value, Segments))
    shown = [described(leaf) for leaf in leaves if hasattr(leaf, "shape")]
    return ", ".join(shown)


def _lets_in(layer: Layer) -> bool:
    """Whether it sees padding, or mixes steps without a mask and is not proved right all the same,
    as a recurrence is that has the lengths.
    """
    return layer.verdict == SEES or ("missing" in layer.words and layer.verdict != PROVED)


def _notes(flow: MaskFlow, any_mask: bool) -> Iterator[str]:
    layers, bad = flow.layers, flow.missing
    if not any_mask:
        yield (
            "There is no mask anywhere: every step counts as real, and the fill is not known. Give "
            "one, `mask_flow(model, x, mask)`, also to a model that takes none."
        )
    if bad:
        names = ", ".join(f"{layer.path or 'the model'} ({layer.name})" for layer in bad[:5])
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        yield f"No mask reaches these, which mix steps, padding included: {names}{more}."
    if any(SEES in layer.verdict for layer in layers):
        yield "`sees padding`: alone, its results at real steps change with what padding holds."
    if flow.unjudged:
        names = ", ".join(dict.fromkeys(layer.path or layer.name for layer in flow.guilty))
        yield f"Padding comes in at {names}. {once_fixed(layer.name for layer in flow.unjudged)}"
    if any(layer.verdict == FINITE for layer in layers):
        yield "`proved if finite`: padding is ignored unless it holds nan or infinities."
    if layers[0].loops:
        yield "`≥`: the turns of a loop depend on the data and count once, and not as padding."
    yield "ops: counted in the traced program; charged to padding by the share of padded steps."
