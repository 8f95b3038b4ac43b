"""What all metrics are: immutable pytrees of sums that add up, with static options."""

import dataclasses
import functools
from typing import Any, Self, TypeVar, dataclass_transform

import jax

from jaxmask._errors import refusing_pairs
from jaxmask._meshes import over_explicit_axes
from jaxmask.metrics._compensated import CompensatedSum

M = TypeVar("M", bound="Metric")


def static(*, default: Any) -> Any:
    """A field that is an option, known when traced."""
    return dataclasses.field(default=default, metadata={"static": True})


@dataclass_transform(frozen_default=True, field_specifiers=(static,))
def metric(cls: type[M]) -> type[M]:
    """Make a frozen dataclass of a metric, and a pytree of that."""
    made = dataclasses.dataclass(frozen=True)(cls)
    init = made.__init__

    @functools.wraps(init)
    def of_sums(self: Any, *sums: Any, **fields: Any) -> None:
        try:
            init(self, *sums, **fields)
        except TypeError as error:
            name = cls.__name__
            raise TypeError(
                f"{name}: a metric begins as `{name}.empty(...)`, which takes its options, and "
                f"`update` takes in each batch. The fields are for JAX: {error}."
            ) from None

    made.__init__ = of_sums  # type: ignore[method-assign]
    return jax.tree_util.register_dataclass(made)


@dataclasses.dataclass(frozen=True)
class Metric:
    """Compensated sums that add up over batches and devices."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "update" in vars(cls):
            cls.update = over_explicit_axes(refusing_pairs(cls.update), by_row=False)  # type: ignore[attr-defined]

    def merge(self, other: Self) -> Self:
        """The metric of the steps of both; their order changes no bit.

        Raises:
          TypeError, ValueError: if `other` is another kind of metric, or made with other options.
        """
        self._check_options(other)
        return jax.tree.map(CompensatedSum.add, self, other, is_leaf=_is_sum)

    def _options(self) -> dict[str, Any]:
        """The static fields, those of a NamedTuple one by one; a class adds what shapes hold."""
        options: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            if field.metadata.get("static"):
                value = getattr(self, field.name)
                options |= value._asdict() if hasattr(value, "_asdict") else {field.name: value}
        return options

    def _check_options(self, other: Any) -> None:
        kind = type(self).__name__
        if type(other) is not type(self):
            raise TypeError(f"{kind}.merge: expected another {kind}, got {type(other).__name__}.")
        theirs = other._options()
        for name, value in self._options().items():
            if value != theirs[name]:
                raise ValueError(
                    f"{kind}.merge: both metrics must have the same `{name}`, got {value!r} and "
                    f"{theirs[name]!r}."
                )


def _is_sum(x: Any) -> bool:
    return isinstance(x, CompensatedSum)
