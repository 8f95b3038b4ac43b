"""The pages of the API reference, made of what each module exports and of its docstrings."""

import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import jaxmask

PACKAGE = Path(jaxmask.__file__).parent
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("[a-z]*/__init__.py"))
FIELDS = "_fields", "__dataclass_fields__"  # of named tuples, of dataclasses
LONG_HEAD = re.compile(r"^(  (?:\w+, )*\w+,)\n +", re.MULTILINE)  # more names in the next line
SECTION = re.compile(r"(Args|Returns|Raises|Yields|Examples?|Attributes):$")


def room(name):
    """The module `jm.name`, or None where its extra is not installed."""
    try:
        return importlib.import_module(f"jaxmask.{name}")
    except ImportError:
        return None


def home(name):
    """Where `jm.name` is described: `pad_sequences` at `jaxmask.batching.pad_sequences`."""
    first, *rest = name.split(".")
    if first in ROOMS:
        known = not rest or rest[0] in getattr(room(first), "__all__", ())
        return f"jaxmask.{name}" if known else None
    where = jaxmask._HOMES.get(first)
    if where is None:
        return None
    owner = "jaxmask" if where.startswith("_") else f"jaxmask.{where}"
    return ".".join([owner, first, *rest])


def directive(value):
    """How autodoc describes a value."""
    if inspect.isclass(value):
        return "autoexception" if issubclass(value, BaseException) else "autoclass"
    return "autofunction" if inspect.isfunction(inspect.unwrap(value)) else "autodata"


def members(value):
    """The options of a class; its fields are described in its own docstring."""
    fields = [x for kind in FIELDS for x in getattr(value, kind, ()) if isinstance(x, str)]
    options = ["   :members:", "   :special-members: __call__"]
    return options + ([f"   :exclude-members: {', '.join(fields)}"] if fields else [])


def first_home(value, attribute):
    """The first module that exports a class which several export."""
    if not inspect.isclass(value):
        return None
    return next(name for name in ROOMS if getattr(room(name), attribute, None) is value)


def page_of_room(name):
    """A module's docstring, and each name that it exports."""
    module = room(name)
    lines = [f"jm.{name}", "=" * (len(name) + 3), "", f".. automodule:: jaxmask.{name}", ""]
    lines += [f".. currentmodule:: jaxmask.{name}", ""]
    for attribute in sorted(module.__all__, key=str.lower):
        value = getattr(module, attribute)
        lines += [attribute, "-" * len(attribute), ""]
        if (first := first_home(value, attribute)) not in (None, name):
            lines += [
                f".. py:class:: {attribute}",
                "",
                f"   :py:obj:`jaxmask.{first}.{attribute}`.",
            ]
        else:
            lines.append(f".. {directive(value)}:: {attribute}")
            lines += members(value) if directive(value) == "autoclass" else []
        lines.append("")
    return "\n".join(lines)


def table(rows):
    """Two columns: a link, and the first sentence of what it leads to."""
    lines = [".. list-table::", "   :widths: auto", ""]
    for link, value in rows:
        summary = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
        lines += [f"   * - {link}", f"     - {inline(summary)}"]
    return [*lines, ""]


def first_page():
    """The modules, and the names of `jm` itself."""
    rooms = [name for name in ROOMS if room(name)]
    lines = ["API reference", "=============", "", ".. automodule:: jaxmask", ""]
    lines += table((f":doc:`jm.{name} <{name}>`", room(name)) for name in rooms)
    lines += [".. toctree::", "   :hidden:", "", *(f"   {name}" for name in rooms), ""]
    names = sorted(jaxmask._HOMES, key=str.lower)
    lines += table((f":py:obj:`jm.{n} <{home(n)}>`", getattr(jaxmask, n)) for n in names)
    lines += [".. currentmodule:: jaxmask", ""]
    lines += [
        f".. {directive(getattr(jaxmask, name))}:: {name}\n   :members:\n"
        for name, where in jaxmask._HOMES.items()
        if where.startswith("_") or name not in room(where).__all__
    ]
    return "\n".join(lines)


def pages():
    """`{file name: text}` of the reference."""
    return {"index.rst": first_page()} | {
        f"{name}.rst": page_of_room(name) for name in ROOMS if room(name)
    }


def write(folder):
    """Write the pages, and touch only those that changed."""
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        if not (folder / name).exists() or (folder / name).read_text() != text:
            (folder / name).write_text(text)


# ----------------------------------------------------- docstrings, to reStructuredText


def to_rst(app, what, name, value, options, lines):
    """Docstrings are written as Markdown: code in single backticks, blocks by indentation."""
    text = LONG_HEAD.sub(r"\1 ", "\n".join(lines))
    lines[:] = convert(text.split("\n"))


def convert(lines):
    """Escape prose, and open a literal block where indentation is not that of a section."""
    result, base, literal = [], 0, None
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            result.append("")
            continue
        if literal is not None and indent >= literal:
            result.append(line)
            continue
        if literal is not None and result[-1]:
            result.append("")
        literal = None
        if SECTION.match(line):
            base = 2
            result.append(line)
            continue
        if indent == 0:
            base = 0
        if is_doctest(lines, i):
            literal = indent
            result.append(line)
        elif indent >= base + 4 and (i == 0 or not lines[i - 1].strip()):
            literal = indent
            result += [" " * base + ".. code-block:: text", "", line]
        else:
            result.append(inline(line))
    return result


def is_doctest(lines, i):
    """Whether a doctest begins here; it ends at the next blank line, like others' output."""
    return lines[i].lstrip().startswith(">>>")


def inline(text):
    """Single backticks to double ones, and no other markup; public names become links."""
    parts = re.split(r"(`+[^`]+`+)", text)
    return "".join(code(p) if p.startswith("`") else escape(p) for p in parts)


def code(span):
    """A span of code, or a link where it is the name of something public."""
    inner = span.strip("`")
    if (match := re.fullmatch(r"(?:jm|jaxmask)\.([\w.]+)", inner)) and (target := home(match[1])):
        return f":py:obj:`{inner} <{target}>`"
    return f"``{inner}``" if inner.strip() == inner else inner


def escape(prose):
    """Protect what reStructuredText would read as markup."""
    prose = prose.replace("\\", "\\\\").replace("*", "\\*").replace("|", "\\|")
    return re.sub(r"_(?=\W|$)", r"\\_", prose)


def signature_of_a_module(app, what, name, value, options, signature, returns):
    """Flax's modules hide the arguments of `__init__` behind those of their metaclass."""
    if what != "class" or "*args" not in (signature or ""):
        return None
    full, written = inspect.signature(value.__init__), defaults_as_written(value.__init__)
    shown = [p for p in full.parameters.values() if p.name != "self"]
    shown = [p.replace(annotation=p.empty, default=written.get(p.name, p.default)) for p in shown]
    return str(full.replace(parameters=shown, return_annotation=full.empty)), None


class Written(str):
    """A default as it stands in the source, `nnx.initializers.zeros_init()`."""

    def __repr__(self):
        return str(self)


def defaults_as_written(function):
    """`{argument: default}`; what a default evaluates to says little of a function."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # what `dataclasses` made, or `object` has
        return {}
    arguments = ast.parse(textwrap.dedent(source)).body[0].args
    last = [*arguments.posonlyargs, *arguments.args][::-1]  # the last ones have defaults
    pairs = [*zip(last, arguments.defaults[::-1], strict=False)]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return {a.arg: Written(ast.unparse(default)) for a, default in pairs if default is not None}
