"""The structure of the library, pinned: layers, Flax's place, sizes, docstrings, registration."""

import ast
import doctest
import inspect
import re
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
            ["_errors"],
            ["_types", "_registry"],
            ["_check", "_meshes", "_nnx", "_compare", "_lines", "_report", "_room", "_sums"],
            ["_class_ids", "_derivatives", "_mask_ops", "_logs"],
            ["masks"],
            ["_host", "_steps"],
            ["ops"],
            ["batching"],
            ["_windows", "_keys", "_loops", "packing"],
            ["merge", "norm", "pool", "shape", "random", "recurrent", "conv"],
            ["attention", "audio", "_chain", "_reduction"],  # they read random and pool
            ["losses"],
            ["decoding", "metrics", "ragged", "skip"],
            ["nn"],
            ["leak", "interop"],
            ["report"],
            ["testing", "grain"],
            ["__init__"],
        )
    )
    for name in names
}
FLAX_PACKAGES = {"nn", "_nnx", "interop"}
SHARED = {path.stem for path in PACKAGE.glob("_[a-z]*")}
UNMASKED = {
    *("batching", "grain", "interop", "leak", "masks", "packing", "ragged", "report", "skip"),
    "testing",
}
PUBLIC_PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("[a-z]*/__init__.py"))


def package_of(path: Path) -> str:
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


def upward(path_package: str, names: list[str]) -> list[str]:
    """The imports that do not go down."""
    targets = [name.split(".")[1] for name in names if name.startswith("jaxmask.")]
    layer = LAYERS[path_package]
    return [t for t in targets if t != path_package and LAYERS.get(t, 99) >= layer]


def private_imports(path_package: str, names: list[str]) -> list[str]:
    """The imports of what another module keeps private, except from what is shared."""
    private = []
    for name in names:
        package, *parts = name.split(".")
        if package != "jaxmask" or parts[0] == path_package or parts[0] in SHARED:
            continue
        is_public = len(parts) == 1 or (len(parts) == 2 and parts[1] in exported(parts[0]))
        if not is_public:
            private.append(name)
    return private


def exported(name: str) -> list[str]:
    tree = ast.parse((PACKAGE / name / "__init__.py").read_text())
    values = [n.value for n in tree.body if isinstance(n, ast.Assign)]
    return ast.literal_eval(values[0])


def test_every_package_has_a_layer():
    assert {package_of(path) for path in FILES} <= set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_and_to_public_exports(path):
    names = imports(ast.parse(path.read_text()))
    if path.parent != PACKAGE or path.stem != "__init__":
        assert not upward(package_of(path), names)
        assert not private_imports(package_of(path), names)
    if package_of(path) not in FLAX_PACKAGES:
        assert not [name for name in names if name.split(".")[0] == "flax"]


def test_the_import_checks_can_fail():
    tree = ast.parse("from jaxmask import nn\nfrom jaxmask.nn._join import call")
    assert upward("pool", imports(tree)) == ["nn", "nn"]
    assert private_imports("pool", imports(tree)) == ["jaxmask.nn._join.call"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_an_init_is_public(path):
    """A name is public where no part of its path has an underscore in front."""
    *folders, name = path.relative_to(PACKAGE).with_suffix("").parts
    if name != "__init__":
        assert any(part[0] == "_" for part in (*folders, name))
    elif not any(part[0] == "_" for part in folders):
        assert_is_a_table_of_contents(
            ast.parse(path.read_text()), extra=folders in (["grain"], ["testing"])
        )


def assert_is_a_table_of_contents(tree, extra):
    """A docstring, imports, `__all__` and `__dir__`, and `try: import` where an extra is needed."""
    docstring, *body = tree.body
    assert isinstance(docstring, ast.Expr)
    names = {
        node.targets[0].id if isinstance(node, ast.Assign) else node.name
        for node in body
        if isinstance(node, ast.Assign | ast.FunctionDef)
    }
    assert names >= {"__all__", "__dir__"}
    kinds = (ast.ImportFrom, ast.Import, ast.Assign, ast.FunctionDef, ast.If)
    assert all(isinstance(node, (*kinds, ast.Try) if extra else kinds) for node in body)


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


def public_objects():
    """Every function and class that a user reaches as `jm.name` or `jm.package.name`."""
    owners = {"jm": jm} | {name: getattr(jm, name) for name in PUBLIC_PACKAGES}
    for owner, module in owners.items():
        for name in module.__all__:
            value = getattr(module, name)
            documented = inspect.isclass(value) or callable(inspect.unwrap(value))
            if documented and not is_alias(value):
                yield pytest.param(value, id=f"{owner}.{name}")


def is_alias(value):
    return not inspect.isclass(value) and not inspect.isfunction(inspect.unwrap(value))


@pytest.mark.parametrize("value", list(public_objects()))
def test_public_names_have_an_example(value):
    assert doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")


def undescribed(tree):
    """The parameters that the `Args` section of their function does not name."""
    for node in ast.walk(tree):
        doc = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
        if doc and (section := re.search(r"^Args:\n((?:  .*\n?|\n(?=  ))*)", doc, re.M)):
            heads = " ".join(re.findall(r"^  (\S[^:]*):", section[1], re.M))
            a = node.args
            given = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
            names = {arg.arg for arg in given if arg is not None} - {"self", "cls"}
            yield from (f"{node.name}: {name}" for name in names - set(re.findall(r"\w+", heads)))


def test_every_argument_is_described():
    trees = (ast.parse(path.read_text()) for path in FILES)
    assert not [name for tree in trees for name in undescribed(tree)]
    wrong = ast.parse('def f(a, b, *, c):\n  """F.\n\n  Args:\n    a, b: as in `g`.\n  """')
    assert list(undescribed(wrong)) == ["f: c"]


def test_every_public_function_is_registered():
    """A new function must enter the registry, or say in a line why it has no place there."""
    public = {
        f"{name}.{attribute}"
        for name in set(PUBLIC_PACKAGES) - UNMASKED
        for attribute in getattr(jm, name).__all__
    }
    registered = {entry.name.split(":")[0] for entry in REGISTRY}
    assert public - registered - set(NOT_MASKED_FUNCTIONS) == set()
    assert set(NOT_MASKED_FUNCTIONS) - public == set()
    assert not registered & set(NOT_MASKED_FUNCTIONS)


def test_each_entry_stands_once():
    names = [entry.name for entry in REGISTRY]
    assert len(names) == len(set(names))
