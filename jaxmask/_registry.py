"""Tables that decorators fill: functions by the names of what they are for."""

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F")


def registering(table: dict[str, F]) -> Callable[..., Callable[[F], F]]:
    """A decorator `@f("name", ...)` that enters a function under several names."""

    def named(*names: str) -> Callable[[F], F]:
        def register(function: F) -> F:
            table.update(dict.fromkeys(names, function))
            return function

        return register

    return named
