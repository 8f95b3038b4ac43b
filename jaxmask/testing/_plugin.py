"""A plugin of pytest: the marker `padding_invariant` and the fixture `ragged_batch`."""

from typing import Any

import numpy as np
import pytest

from jaxmask import _check, _errors, leak
from jaxmask.testing._strategies import LAYOUTS

MARKER = "padding_invariant"
DESCRIPTION = (
    f"{MARKER}(features=(4,), batch=3, time=6, dtype='float32', high=5, layout='right', moves=(), "
    "params=None): padding changes nothing in the function or module that the test returns; also "
    "says what `ragged_batch` holds"
)


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marker `padding_invariant`.

    Args:
      config: of pytest, which calls this.

    Example:
      >>> import jaxmask as jm
      >>> class Config:
      ...     def addinivalue_line(self, name, line):
      ...         print(name, line.partition("(")[0])
      >>> jm.testing.pytest_configure(Config())
      markers padding_invariant
    """
    config.addinivalue_line("markers", DESCRIPTION)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Run a test that is marked `padding_invariant`, and check the function that it returns.

    Args:
      pyfuncitem: the test.

    Returns:
      True if the test was run here, None for tests without the marker.

    Raises:
      LeakError: if padding leaks.
      TypeError: if a marked test returns nothing.

    Example:
      >>> import jaxmask as jm
      >>> class Unmarked:
      ...     def get_closest_marker(self, name):
      ...         return None
      >>> jm.testing.pytest_pyfunc_call(Unmarked()) is None
      True
    """
    __tracebackhide__ = True
    marker = pyfuncitem.get_closest_marker(MARKER)
    if marker is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    fn = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    if fn is None:
        raise TypeError(
            f"a test marked `{MARKER}` must return the function `(x, mask)` or the module to be "
            "checked, got None."
        )
    of_batch, of_check = _options(marker)
    x, mask = _batch(**of_batch)
    try:
        leak.assert_padding_invariant(fn, x, mask, **of_check)
    except leak.LeakError:
        raise
    except Exception as error:
        error.add_note(_said_of(x, of_batch))
        raise
    return True


@pytest.fixture
def ragged_batch(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """A batch `(x, mask)` with a full row, shorter ones, and other values in the padding.

    The arguments of the marker `padding_invariant`, if the test has it, say its shape and type.

    Args:
      request: of pytest, which calls this.

    Returns:
      `x [batch, time, *features]` and `mask [batch, time]`, NumPy arrays, the same in each run.

    Example:
      >>> def test_sums_are_finite(ragged_batch):
      ...     x, mask = ragged_batch
      ...     assert np.isfinite(x[mask].sum())
    """
    marker = request.node.get_closest_marker(MARKER)
    return _batch(**_options(marker)[0]) if marker else _batch()


OF_BATCH = ("features", "batch", "time", "dtype", "high", "layout")
OF_CHECK = ("moves", "params")


def _options(marker: pytest.Mark) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a marker says of the batch, and of the check."""
    if marker.args:
        raise TypeError(
            f"{MARKER}: takes options by keyword alone, got {marker.args[0]!r} without a name. "
            f"It takes {_listed()}."
        )
    for name in marker.kwargs:
        if name not in (*OF_BATCH, *OF_CHECK):
            near = _errors.did_you_mean(name, (*OF_BATCH, *OF_CHECK))
            raise TypeError(f"{MARKER}: there is no option `{name}`.{near} It takes {_listed()}.")
    parts = (OF_BATCH, OF_CHECK)
    of_batch, of_check = ({k: v for k, v in marker.kwargs.items() if k in part} for part in parts)
    return of_batch, of_check


def _listed() -> str:
    return ", ".join(f"`{name}`" for name in (*OF_BATCH, *OF_CHECK))


def _said_of(x: np.ndarray, given: dict[str, Any]) -> str:
    """What the function was called with, where it failed."""
    text = f"{MARKER}: the function was called with x {x.dtype} {list(x.shape)}"
    if "dtype" in given:
        return f"{text}."
    return f"{text}; if it takes token ids, mark it `{MARKER}(features=(), dtype='int32')`."


def _batch(
    *,
    features: tuple[int, ...] = (4,),
    batch: int = 3,
    time: int = 6,
    dtype: Any = "float32",
    high: int = 5,
    layout: str = "right",
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `time` steps, of half as many, of a third, and so on."""
    _check.choice(layout, LAYOUTS, MARKER, "layout")
    if not isinstance(features, tuple | list):
        raise TypeError(f"{MARKER}: `features` must be a tuple such as (4,), got {features!r}.")
    rng = np.random.default_rng(0)
    lengths = np.maximum(time // np.arange(1, batch + 1), 1)
    mask = np.arange(time) < lengths[:, None]
    if layout == "left":
        mask = mask[:, ::-1].copy()
    if layout == "holes":
        mask = rng.permuted(mask, axis=1)
    shape = (*mask.shape, *features)
    if np.issubdtype(np.dtype(dtype), np.integer):
        return rng.integers(0, high, shape).astype(dtype), mask
    return rng.normal(size=shape).astype(dtype), mask
