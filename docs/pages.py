"""The pages, which GitHub shows as they are: how the site runs and links them."""

import os
import re
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2`*$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"(?<!`)`jm((?:\.[A-Za-z]\w*)+)(?:\([^`<>]*\))?`(?!`)")
OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./([^)#]+)(?:#[^)]*)?\)")
SCRIPT = re.compile(r"^\| `examples/(\w+)\.py`", re.MULTILINE)
WITHIN_NAME = re.compile(r"(?<=[.(=_])(?=[A-Za-z*])")
SHORT = 16  # names of so many characters stay whole
NOTEBOOK = f"""---
file_format: mystnb
kernelspec:
  name: python3
---
```{{code-cell}}
:tags: [remove-cell]
import sys; sys.path.insert(0, {str(DOCS)!r}); import pages; pages.enter_a_folder()
```
"""


def prepare(app, name, source):
    """Make cells of the Python of a page, and links of the public names in its text."""
    if not (DOCS / f"{name}.md").exists():
        return
    text = outside_code(source[0], lambda prose: download(link_names(prose)))
    if name == "examples":
        text = with_notebooks(text)
    if BLOCK.search(text):
        text = NOTEBOOK + BLOCK.sub(r"```{code-cell}\n\1```", text)
    source[0] = text


def outside_code(text, change):
    """Change what stands between fenced blocks."""
    parts, end = [], 0
    for block in FENCE.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def link_names(prose):
    """Turn `` `jm.pool.mean` `` into a link to where it is described."""
    from reference import home

    def link(match):
        target = home(match[1][1:])
        return f"{{py:obj}}`{match[0].strip('`')} <{target}>`" if target else match[0]

    return NAME.sub(link, prose)


def download(prose):
    """What lies outside of this folder becomes a file that the page offers."""
    return OUTSIDE.sub(r"{download}`\1 <../\2>`", prose)


def with_notebooks(text):
    """The table of scripts leads to their notebooks."""
    names = SCRIPT.findall(text)
    links = r"| {doc}`\1 <notebooks/\1>` ({download}`.ipynb <notebooks/\1.ipynb>`)"
    listed = "\n".join(f"{name} <notebooks/{name}>" for name in names)
    return SCRIPT.sub(links, text) + f"\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"


def break_names(app, doctree, name):
    """Long names in tables break after a dot, a bracket, `=` or `_`, and nowhere else."""
    from docutils import nodes

    for table in doctree.findall(nodes.table):
        for code in table.findall(nodes.literal):
            if len(text := code.astext()) <= SHORT:
                continue
            first, *parts = WITHIN_NAME.split(text)
            code[:] = [nodes.Text(first)]
            for part in parts:
                code += [nodes.raw("", "<wbr>", format="html"), nodes.Text(part)]


def enter_a_folder():
    """Pages write where nothing else is, and read what benchmarks measured."""
    os.chdir(tempfile.mkdtemp())
    Path("bench").symlink_to(DOCS.parent / "bench")


def blocks(page):
    """The Python of a page that runs, from top to bottom."""
    return BLOCK.findall(page.read_text())


def write_llms_txt(app, exception):
    """`llms.txt` lists the pages with their first sentences, `llms-full.txt` holds them."""
    if exception or app.builder.format != "html":
        return
    listed, whole = ["# jaxmask", "", "> " + summary(DOCS / "index.md"), ""], []
    for name in sorted(app.env.found_docs):
        if (page := DOCS / f"{name}.md").exists() and name != "index":
            title = re.search(r"^# (.*)$", page.read_text(), re.MULTILINE)[1].replace("`", "")
            listed.append(f"- [{title}]({name}.html): {summary(page)}")
            whole.append(page.read_text())
    (Path(app.outdir) / "llms.txt").write_text("\n".join(listed) + "\n")
    (Path(app.outdir) / "llms-full.txt").write_text("\n\n".join(whole))


def summary(page):
    """The first paragraph of prose under the title."""
    body = re.split(r"^# .*$", page.read_text(), maxsplit=1, flags=re.MULTILINE)[1]
    for paragraph in re.split(r"\n\s*\n", body.strip()):
        if re.match(r"[A-Za-z`*]", paragraph) and not paragraph.startswith("```"):
            return " ".join(paragraph.split())
    return ""
