"""What all modules share: the base class, options of parameters, and checks."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Required, TypedDict, TypeVar, dataclass_transform

import jax
from flax import nnx

from jaxmask import _check, _errors
from jaxmask._types import Array, ArrayLike, Mask, Pair

M = TypeVar("M", bound=nnx.Module)
F = TypeVar("F", bound=Callable[..., None])
NOTHING: Mapping[str, Any] = MappingProxyType({})


_RNGS = "`rngs` is required, for example `rngs=nnx.Rngs(0)`."


def _names(module: nnx.Module) -> list[str]:
    """The names of all arguments of `__init__`, that of base classes too."""
    inits = [vars(cls)["__init__"] for cls in type(module).__mro__ if "__init__" in vars(cls)]
    return [name for init in inits for name in inspect.signature(init).parameters]


def _naming_the_class(init: F) -> F:
    """An `__init__` whose errors about arguments name the class that is made, not a base."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def named(self: nnx.Module, *arguments: Any, **options: Any) -> None:
        try:
            signature.bind(self, *arguments, **options)
        except TypeError as error:
            where, text = type(self).__name__, str(error)
            if text == "missing a required argument: 'rngs'":
                raise TypeError(f"{where}: {_RNGS}") from None
            # Python names what is missing first, which a misspelt name explains.
            unknown = [name for name in options if name not in signature.parameters]
            if unknown and not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
                text = f"got an unexpected keyword argument {unknown[0]!r}"
                hint = _errors.did_you_mean(unknown[0], _names(self))
                raise TypeError(f"{where}: {text}.{hint}") from None
            raise TypeError(f"{where}: {text}.") from None
        init(self, *arguments, **options)

    return named  # type: ignore[return-value]


class Module(nnx.Module):
    """A module of this library: errors about the arguments of `__init__` name it, not a base."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls) and cls.__module__.startswith("jaxmask."):
            cls.__init__ = _naming_the_class(cls.__init__)  # type: ignore[method-assign]


class MaskedModule(Module):
    """A module `(x, mask) -> (y, mask)`. A user's layer needs no base class to be one.

    `per_step` is True for a class that acts on each step alone, so that `Sequential.run` may call
    it chunk by chunk without a carry.
    """

    per_step: ClassVar[bool] = False

    def __call__(self, x: Any, mask: Mask = None) -> tuple[Any, Mask]:
        """Compute the pair."""
        raise NotImplementedError

    def compute_mask(self, x: Any, mask: Mask = None) -> Mask:
        """The mask that calling the module gives; no random stream and no statistic changes.

        It costs a call, since a mask may depend on values; under `jit` anything that only the
        values need is not computed.
        """
        return quiet_copy(self)(x, mask)[1]


def checked(check: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """A field that `check(value, where, name, *args)` checks and converts."""
    known = {name: options.pop(name) for name in ("default", "kw_only") if name in options}
    metadata = {"check": lambda value, where, name: check(value, where, name, *args, **options)}
    return dataclasses.field(**known, metadata=metadata)


@dataclass_transform(eq_default=False, field_specifiers=(checked, dataclasses.field))
def configured(cls: type[M]) -> type[M]:
    """Make `__init__` of the fields of a module, as `dataclasses.dataclass` does."""
    made = dataclasses.dataclass(eq=False, repr=False)(cls)
    made.__init__ = _naming_the_class(made.__init__)  # type: ignore[method-assign]
    for name, field in made.__dataclass_fields__.items():  # type: ignore[attr-defined]
        if isinstance(field.type, dataclasses.InitVar) and name in vars(made):
            delattr(made, name)  # it would be read as an attribute, whatever a module was given
    return made


@configured
class Configured(MaskedModule):
    """A module of options alone: its fields are the arguments of the function below it."""

    _function: ClassVar[Callable[..., Pair]]
    _of_call: ClassVar[tuple[str, ...]] = ()  # fields that are no arguments of the function

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if check := field.metadata.get("check"):
                value = check(getattr(self, field.name), type(self).__name__, field.name)
                setattr(self, field.name, value)

    def _run(self, x: Any, mask: Mask, *more: Any, **options: Any) -> Pair:
        fields = [field for field in dataclasses.fields(self) if field.name not in self._of_call]
        sizes = [getattr(self, field.name) for field in fields if not field.kw_only]
        options |= {field.name: getattr(self, field.name) for field in fields if field.kw_only}
        return type(self)._function(x, mask, *more, *sizes, **options)

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Run the function and return `(y, mask)`."""
        return self._run(x, mask)


class ParamOptions(TypedDict, total=False):
    """What every module with parameters takes."""

    dtype: jax.typing.DTypeLike | None
    param_dtype: jax.typing.DTypeLike
    rngs: Required[nnx.Rngs]


class Weighted(MaskedModule):
    """A module that makes its own parameters and casts them, with `x`, to `dtype`."""

    dtype: jax.typing.DTypeLike | None

    def _param(
        self,
        init: nnx.Initializer,
        shape: tuple[int, ...],
        metadata: Mapping[str, Any],
        rngs: nnx.Rngs,
        param_dtype: jax.typing.DTypeLike,
    ) -> nnx.Param:
        return nnx.Param(init(rngs.params(), shape, param_dtype), **metadata)

    def _cast(self, x: ArrayLike, *params: nnx.Param | None) -> tuple[Any, ...]:
        """`x` and the parameters as arrays, in `dtype` where there is one."""
        x = _check.array(x, "x", type(self).__name__)
        arrays: tuple[Array | None, ...] = (x, *(None if p is None else p[...] for p in params))
        if self.dtype is None:
            return arrays
        return jax.tree.map(lambda a: a.astype(self.dtype), arrays)

    def _require_features(self, x: ArrayLike, size: int) -> None:
        """Check the last axis of `x` against the size that the module was made for."""
        where = type(self).__name__
        shape = _check.array(x, "x", where).shape
        if len(shape) < 2 or shape[-1] != size:
            raise ValueError(
                f"{where}: the last axis of `x` must hold {size} features, got shape {shape}."
            )


def check_sizes(where: str, **sizes: Any) -> None:
    """Sizes that a module is built for, each at least 1."""
    for name, size in sizes.items():
        _check.count(size, where, name, least=1)


def check_options(module: nnx.Module, options: Mapping[str, Any], known: type) -> None:
    """Refuse unknown options and require `rngs` here: an error later would name another class."""
    where = type(module).__name__
    unknown = sorted(options.keys() - known.__annotations__.keys())
    if unknown:
        raise TypeError(
            f"{where}: got an unexpected keyword argument {unknown[0]!r}."
            f"{_errors.did_you_mean(unknown[0], (*_names(module), *known.__annotations__))}"
        )
    if "rngs" not in options:
        raise TypeError(f"{where}: {_RNGS}")


def quiet_copy(module: M) -> M:
    """A copy with its own variables and without noise, to compute a mask without side effects."""
    copy = nnx.merge(*nnx.split(module), copy=True)
    # No mask depends on noise, and layers may get their streams only when they are called.
    copy.set_attributes(deterministic=True, raise_if_not_found=False)
    return copy
