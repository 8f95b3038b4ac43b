"""What an operation that let padding in is, in words, and what to use instead."""

_SUM = (
    "a sum or mean over an axis with padding",
    "`jm.pool`, `jm.norm`, or `where=` of the reduction; fill with `jm.ops.fill` where 0 * nan is",
)
_EXTREME = (
    "an extreme over an axis with padding, as in a softmax",
    "`jm.ops.softmax`, `jm.pool.max`, `jm.pool.min`",
)
_WINDOW = ("a window over the edge of the padding", "`jm.conv`, or `jm.ops.fill` before it")
_LOOP = ("a loop that carries padding from one step to the next", "`jm.recurrent`, `jm.nn.RNN`")
_RUNNING = ("running values that include padding", "`jm.ops.cumsum`, or `jm.ops.fill` before it")
_ORDER = ("an order in which padding takes part", "`jm.ops.fill` with what sorts last")

WORDS: dict[str, tuple[str, str]] = {
    "dot_general": (
        "a product that sums over padding, where 0 * nan is nan",
        "`jm.attention.attend`, `jm.nn.MultiHeadAttention`, or `jm.ops.fill` before it",
    ),
    "conv_general_dilated": _WINDOW,
    "gather": ("an index that may point into the padding", "`jm.shape.take`, `jm.pool.last`"),
    "fft": ("a transform over an axis with padding", "`jm.audio.stft`"),
    **dict.fromkeys(("reduce_sum", "reduce_prod", "reduce_or", "reduce_and"), _SUM),
    **dict.fromkeys(("reduce_max", "reduce_min", "argmax", "argmin", "top_k"), _EXTREME),
    **dict.fromkeys(("reduce_window", "reduce_window_sum", "reduce_window_max"), _WINDOW),
    **dict.fromkeys(("scan", "while"), _LOOP),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _RUNNING),
    "sort": _ORDER,
}
