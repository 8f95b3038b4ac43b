"""Room for the tokens of a search, in layers that hold only so many steps of a row."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_needed: ContextVar[tuple[str, int] | None] = ContextVar("needed", default=None)


@contextlib.contextmanager
def needed(where: str, tokens: int) -> Iterator[None]:
    """While a step is traced that a search may call so many times."""
    token = _needed.set((where, tokens))
    try:
        yield
    finally:
        _needed.reset(token)


def check(size: int, where: str, holder: str, of: str) -> None:
    """Refuse a search for more tokens than a layer can hold, whatever comes before them."""
    search, tokens = _needed.get() or ("", 0)
    if tokens > size:
        raise ValueError(
            f"{search}: `max_length` is {tokens}, and {holder} of {where} has {size} {of}. It must "
            "hold what it was given before and all tokens of the search: build the layers with "
            f"`max_length=` of at least {tokens} and the longest prompt, or give attention a "
            "`window=`."
        )
