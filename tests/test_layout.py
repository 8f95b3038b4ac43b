"""The structure of the library, pinned: layers, Flax's place, sizes, docstrings, registration."""

import ast
import doctest
import inspect
from pathlib import Path

import pytest

import jaxmask as jm
from tests.registry import NOT_MASKED_FUNCTIONS, REGISTRY

PACKAGE = Path(jm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LAYERS = {
    name: number
    for number, names in enumerate(
        (
            ["_types"],
            ["_check"],
            ["_class_ids"],
            ["masks"],
            ["batching", "ops"],
            ["packing"],
            ["merge", "norm", "pool", "shape", "random", "recurrent", "conv"],
            ["attention", "audio"],  # they read random, and conv
            ["losses"],
            ["decoding", "metrics", "ragged"],
            ["nn"],
            ["leak"],
            ["testing", "grain"],
            ["__init__"],
        )
    )
    for name in names
}
FLAX_ROOMS = {"nn"}
ROOMS = (
    "audio",
    "attention",
    "conv",
    "decoding",
    "merge",
    "norm",
    "ops",
    "pool",
    "shape",
    "recurrent",
    "random",
    "losses",
    "metrics",
    "nn",
)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(tree: ast.AST) -> list[str]:
    """Dotted names of everything that a file imports, wherever in it."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the layer"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def upward(path_room: str, names: list[str]) -> list[str]:
    """The imports that do not go down."""
    targets = [name.split(".")[1] for name in names if name.startswith("jaxmask.")]
    layer = LAYERS[path_room]
    return [t for t in targets if t != path_room and LAYERS.get(t, 99) >= layer]


def test_every_room_has_a_layer():
    assert {room(path) for path in FILES} <= set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    names = imports(ast.parse(path.read_text()))
    assert not upward(room(path), names)
    if room(path) not in FLAX_ROOMS:
        assert not [name for name in names if name.split(".")[0] == "flax"]


def test_the_import_check_can_fail():
    tree = ast.parse("from jaxmask import nn\nfrom jaxmask.nn.join import call")
    assert upward("pool", imports(tree)) == ["nn", "nn"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_sizes(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 450
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            has_docstring = ast.get_docstring(node) is not None
            body = node.body[1:] if has_docstring else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 60, node.name


def test_the_table_of_contents_is_nothing_else():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    kinds = (ast.Expr, ast.Import, ast.ImportFrom)
    others = [node for node in tree.body if not isinstance(node, kinds)]
    # What needs an extra is imported on demand.
    assert [getattr(node, "name", None) for node in others] == ["__getattr__"]


def top_level_definitions():
    """Every top-level function and class without a leading underscore."""
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                yield pytest.param(node, id=f"{path.relative_to(PACKAGE)}:{node.name}")


@pytest.mark.parametrize("node", list(top_level_definitions()))
def test_names_without_an_underscore_have_a_docstring(node):
    assert ast.get_docstring(node)


def public_objects():
    """Every function and class that a user reaches as `jm.name` or `jm.room.name`."""
    others = "masks", "batching", "packing", "leak", "grain", "ragged", "testing"
    for room_name in ("", *ROOMS, *others):
        owner = getattr(jm, room_name) if room_name else jm
        for name, value in vars(owner).items():
            documented = inspect.isclass(value) or callable(inspect.unwrap(value))
            of_ours = getattr(value, "__module__", "").startswith("jaxmask")
            if name[0] != "_" and documented and of_ours and not is_alias(value):
                yield pytest.param(value, id=f"{room_name}.{name}".strip("."))


def is_alias(value):
    return not hasattr(value, "__name__")


@pytest.mark.parametrize("value", list(public_objects()))
def test_public_names_have_an_example(value):
    assert doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")


def test_every_public_function_is_registered():
    """A new function must enter the registry, or say in a line why it has no place there."""
    public = {
        f"{name}.{attribute}"
        for name in ROOMS
        for attribute, value in vars(getattr(jm, name)).items()
        if attribute[0] != "_"
        and not inspect.ismodule(value)
        and getattr(value, "__module__", "").startswith(f"jaxmask.{name}")
    }
    registered = {entry.name.split(":")[0] for entry in REGISTRY}
    assert public - registered - set(NOT_MASKED_FUNCTIONS) == set()
    assert set(NOT_MASKED_FUNCTIONS) - public == set()
    assert not registered & set(NOT_MASKED_FUNCTIONS)


def test_each_entry_stands_once():
    names = [entry.name for entry in REGISTRY]
    assert len(names) == len(set(names))
