"""Configuration of the site: `python -m sphinx -W -n docs build/site`."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:rich.live"  # that it has no widgets here

import notebooks  # noqa: E402
import pages  # noqa: E402
import reference  # noqa: E402

import jaxmask  # noqa: E402, F401  (autodoc must document this checkout)

project = "jaxmask"
author = "the jaxmask authors"
copyright = "2026, the jaxmask authors"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["report.svg"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}
default_role = "code"
nitpicky = True  # every public name that a page or a docstring mentions must exist
nitpick_ignore_regex = [("py:(class|data)", ".*")]  # annotations

html_theme = "furo"
html_title = "jaxmask"
html_baseurl = ""
html_theme_options = {"navigation_with_keys": True}
html_copy_source = True
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]

nb_execution_mode = "force"
nb_execution_excludepatterns = [
    f"notebooks/{name}.ipynb" for name in notebooks.SMALL if not notebooks.runs_here(name)
]
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = "remove"
nb_merge_streams = True

autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
linkcheck_retries = 2
linkcheck_timeout = 20
linkcheck_anchors_ignore_for_url = ["https://github.com/.*"]  # made by scripts in the browser

copybutton_exclude = ".linenos, .gp, .go"


def setup(app):
    """Write the reference and the notebooks, run the Python of the pages, and write `llms.txt`."""
    reference.write(DOCS / "api")
    notebooks.write(DOCS / "notebooks")
    app.connect("source-read", pages.prepare)
    app.connect("doctree-resolved", pages.break_names)
    app.connect("autodoc-process-docstring", reference.to_rst, priority=400)
    app.connect("autodoc-process-signature", reference.signature_of_a_module)
    app.connect("build-finished", pages.write_llms_txt)
