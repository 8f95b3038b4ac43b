"""Notebooks of the examples, made of the scripts: `python docs/notebooks.py FOLDER`."""

import ast
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

EXAMPLES = Path(__file__).parents[1] / "examples"
RULE = re.compile(r"# -{3,}(.*)")


class Small(NamedTuple):
    """How an example runs in seconds, and what it needs besides the extra `test`."""

    arguments: str = ""
    needs: str = ""


SMALL = {
    "guide": Small(),
    "pronounce": Small("--model tiny --words 300 --steps 10"),
    "classify_speakers": Small("--small", "aeon"),
    "tag_speakers": Small("--small", "aeon"),
    "seq2seq": Small("--small"),
    "rollout": Small("--small"),
    "linen": Small("--small"),
    "infer": Small("--small"),
    "migrate_keras": Small("--small", "keras"),
    "migrate_torch": Small("--small", "torch"),
    "transformer": Small("--small"),
    "ragged_vmap": Small("--small"),
}


def runs_here(name):
    needs = SMALL[name].needs
    return not needs or importlib.util.find_spec(needs) is not None


def write(folder):
    """Write all of them, and touch only those that changed."""
    folder.mkdir(exist_ok=True)
    for name in SMALL:
        path, text = folder / f"{name}.ipynb", json.dumps(notebook(name), indent=1)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def notebook(name):
    """Its text, the files that it imports, then the script, cell by cell."""
    source = (EXAMPLES / f"{name}.py").read_text()
    title, _, rest = ast.get_docstring(ast.parse(source)).partition("\n")
    cells = [markdown(f"# {title.rstrip('.')}\n{rest}")]
    for path in imported(source):
        cells += written(path)
    cells += cells_of(source, f"{name}.py {SMALL[name].arguments}".split())
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    numbered = [{"id": f"{name}-{i}"} | cell for i, cell in enumerate(cells)]
    form = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}}
    return form | {"cells": numbered}


def markdown(source):
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def python(source, *tags):
    cell = {"cell_type": "code", "metadata": {"tags": [*tags]}, "source": source}
    return cell | {"execution_count": None, "outputs": []}


def imported(source):
    """The files of `examples/` that a script reaches, each after those that it imports."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for path in local(node):
            deeper = [*imported(path.read_text()), path] if path not in found else []
            found += [each for each in deeper if each not in found]
    return found


def local(node):
    """The files that one import names."""
    if not isinstance(node, ast.ImportFrom):
        return []
    base = EXAMPLES / node.module.replace(".", "/")
    package = EXAMPLES / node.module.partition(".")[0]
    paths = [package / "__init__.py", base.with_suffix(".py")]
    paths += [base / f"{alias.name}.py" for alias in node.names]
    return [path for path in paths if path.exists()]


def written(path):
    """A cell that writes a file beside the notebook, folded in the page."""
    name = path.relative_to(EXAMPLES)
    if name.name == "__init__.py":
        yield python(f"%mkdir -p {name.parent}")
    cell = python(f"%%writefile {name}\n{path.read_text()}".strip(), "hide-input")
    cell["metadata"]["mystnb"] = {"code_prompt_show": f"{name}", "code_prompt_hide": f"{name}"}
    yield cell


def cells_of(source, argv):
    """A cell for each function, class and run of other statements; comments become text."""
    cells, going_on = [], False
    for node, gap, code in pieces(source):
        text, remarks = prose(gap)
        if title := re.fullmatch(r'title\("(.*)"\)', "".join(code[:1])):
            text, code = f"{text}\n\n## {title[1]}".strip(), []
        if text:
            cells.append(markdown(text))
        if code[:1] == ['if __name__ == "__main__":']:
            remarks, code, going_on = [], called(code, argv), False
        defines = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if code and going_on and not defines and not text:
            cells[-1]["source"] += "\n".join(["", *[""] * ("" in gap), *remarks, *code])
        elif code:
            cells.append(python("\n".join([*remarks, *code])))
        going_on = bool(code) and not defines
    return cells


def pieces(source):
    """Each statement of a script after its docstring, with the lines before it; then the rest."""
    lines, (text, *body) = source.splitlines(), ast.parse(source).body
    end = text.end_lineno
    for node in body:
        first = min([node, *getattr(node, "decorator_list", ())], key=lambda n: n.lineno).lineno
        yield node, lines[end : first - 1], lines[first - 1 : node.end_lineno]
        end = node.end_lineno
    yield None, [*lines[end:], ""], []


def prose(gap):
    """The comments that stand by themselves, as Markdown, and those of the statement below."""
    *apart, below = ("\n".join(gap) + "\n").split("\n\n")
    attached = [line for line in below.splitlines() if line and not RULE.match(line)]
    heads = [match[1].strip() for match in map(RULE.match, gap) if match and match[1]]
    paragraphs = [f"## {head.capitalize()}" for head in heads]
    for paragraph in apart:
        words = [line.removeprefix("#").strip() for line in paragraph.splitlines()]
        if "".join(words).strip("-") and not RULE.match(paragraph.strip()):
            paragraphs.append(" ".join(words).strip())
    return "\n\n".join(paragraphs), attached


def called(code, argv):
    """What runs a script, in its small form."""
    small = ["import sys", "", f"sys.argv = {json.dumps(argv)}  # its small form"]
    return [*small[: 3 * (len(argv) > 1)], *(line.removeprefix("    ") for line in code[1:])]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
