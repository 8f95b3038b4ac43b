"""Windows of other libraries' convolutions as those of `jaxmask.conv`."""


def padding_of(low: int, high: int, reach: int) -> str | tuple[int, int]:
    """Zeros before and after each row as a `padding` of `Conv1D`, by its name where it has one.

    Packed rows and streaming support named paddings only. `reach`: steps from the first to the last
    of a window.
    """
    if 2 * low == 2 * high == reach:
        return "same"
    names = {(0, 0): "valid", (reach, 0): "causal", (0, reach): "reverse_causal"}
    return (names | {(reach, reach): "full"}).get((low, high), (low, high))
