"""What operations that let padding in are, in words, and what to use instead."""

from collections.abc import Collection

_FILL = "`jm.ops.fill` before it"
_SOFTMAX = (
    "a softmax over time without a mask",
    "`jm.nn.MultiHeadAttention`, `jm.attention.attend`, `jm.ops.softmax`",
)
_BATCH = ("batch statistics over padding", "`jm.nn.BatchNorm`, `jm.norm.batch`")
_LENGTH = (
    "a number that follows from the padded length",
    "count real steps: `mask.sum(1)`, `jm.pool.mean`, `jm.masks.positions`",
)
_PLACE = (
    "an index that counts from the padded end, or points into the padding",
    "`jm.ops.flip`, `jm.pool.last`, `jm.shape`, `jm.masks.positions`",
)

_ENDS = {
    "last": (
        "the last step of the rectangle (`x[:, -1]`) taken where rows end earlier",
        "`jm.pool.last`, or `jm.nn.RNN` with `return_sequences=False`",
    ),
    "first": (
        "the first step of the rectangle (`x[:, 0]`) taken where rows begin later",
        "`jm.pool.first`",
    ),
}

_MOVES = (
    *("gather", "rev", "slice", "dynamic_slice", "iota", "squeeze", "concatenate", "pad"),
    *("transpose", "reshape"),
)

_KINDS = {
    **dict.fromkeys(("reduce_sum", "reduce_prod", "reduce_or", "reduce_and"), "sum"),
    **dict.fromkeys(("reduce_max", "reduce_min", "argmax", "argmin", "top_k"), "extreme"),
    **dict.fromkeys(("reduce_window", "reduce_window_sum", "reduce_window_max"), "window"),
    **dict.fromkeys(("scan", "while"), "loop"),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), "running"),
    **dict.fromkeys(_MOVES, "place"),
    **{"dot_general": "product", "conv_general_dilated": "window", "sort": "order"},
}
_PADDING: dict[str, tuple[str, str]] = {
    "sum": (
        "a sum or mean over an axis with padding",
        "`jm.pool.mean`, `jm.nn.GlobalMeanPool`, `jm.norm`, or `where=` of the reduction",
    ),
    "extreme": ("an extreme over an axis with padding", "`jm.pool.max`, `jm.pool.min`"),
    "product": (
        "a product that sums over padding, where 0 * nan is nan",
        f"`jm.attention.attend`, `jm.nn.MultiHeadAttention`, or {_FILL}",
    ),
    "window": (
        "a window over the edge of the padding",
        f"`jm.nn.Conv1D`, `jm.nn.MaxPool1D`, `jm.conv`, or {_FILL}",
    ),
    "loop": (
        "a loop that carries padding from one step to the next",
        "`jm.nn.RNN`, `jm.nn.LSTM`, `jm.recurrent`",
    ),
    "running": ("running values that include padding", f"`jm.ops.cumsum`, or {_FILL}"),
    "order": ("an order in which padding takes part", "`jm.ops.fill` with what sorts last"),
    "place": _PLACE,
}
WORDS = {
    **{name: _PADDING[kind] for name, kind in _KINDS.items()},
    "fft": ("a transform over an axis with padding", "`jm.audio.stft`"),
    **dict.fromkeys(("div", "mul", "broadcast_in_dim"), _LENGTH),
    **{
        f"{name} of the {end} step": words
        for name in ("slice", "dynamic_slice", "gather")
        for end, words in _ENDS.items()
    },
}

# What is not padding: later steps, other rows, other sequences.
_ATTENTION = "`causal=True` of `jm.nn.MultiHeadAttention`, `jm.attention.attend`"
_LATER: dict[str, tuple[str, str]] = {
    "sum": ("a sum or mean over later steps too", "`jm.ops.cumsum`, over the steps so far"),
    "extreme": (
        "an extreme over later steps too (a softmax begins with one)",
        f"{_ATTENTION}; `jax.lax.cummax`",
    ),
    "product": ("a product that sums over later steps too", _ATTENTION),
    "window": ("a window that reaches later steps", '`padding="causal"` of `jm.nn.Conv1D`'),
    "loop": (
        "a loop that carries later steps to earlier ones",
        "`jm.nn.LSTM` and others in one direction, without `reverse=True`",
    ),
    "running": ("running values that begin at the end", "`jm.ops.cumsum`"),
    "order": ("an order in which later steps take part", ""),
    "place": (
        "an index that takes a later step",
        "`jm.ops.shift` by a positive number",
    ),
}
_OTHERS = {
    "sum": "a sum or mean over several {}",
    "extreme": "an extreme over several {}",
    "product": "a product that sums over several {}",
    "window": "a window over several {}",
    "loop": "a loop that carries something from one of the {} to another",
    "running": "running values over several {}",
    "order": "an order in which several {} take part",
    "place": "an index that takes something of another of the {}",
}
_APART = {
    "rows": ("rows", ""),
    "segments": (
        "packed sequences",
        "jaxmask's function for it, which keeps sequences apart by `Segments`",
    ),
}


def apart_in_words(primitive: str, of: str) -> tuple[str, str]:
    """`in_words` where later steps, other rows or other sequences must not be seen."""
    kind = _KINDS.get(primitive)
    if kind is None:
        return "", ""
    if of == "time":
        return _LATER[kind]
    others, mend = _APART[of]
    return _OTHERS[kind].format(others), mend


def in_words(
    primitives: Collection[str], beside: Collection[str] = (), *, of_batch: bool = False
) -> tuple[str, str]:
    """What operations on one line are, and what to use instead; empty where there are no words.

    `beside` names all operations of the line, `of_batch` says that some run over the batch too.
    """
    found = [name for name in primitives if name in WORDS]
    if {"reduce_max", "reduce_sum"} & set(found) and "exp" in beside:
        return _SOFTMAX
    if of_batch:
        return _BATCH
    different = dict.fromkeys(WORDS[name] for name in found)
    for vague in (_LENGTH, _PLACE):
        if len(different) > 1:
            different.pop(vague, None)
    return " and ".join(what for what, _ in different), "; ".join(mend for _, mend in different)
