"""Settings of the documentation site.

    sphinx-build -W --keep-going -b html docs docs/_build/html

Needs the package, built, and `pip install '.[docs]'`; no network. Every link within the site is
checked, and each warning is an error. Links to other sites are not checked (`-b linkcheck` would),
and no inventories of other projects are read, because CI has no access to the web.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import gat_ext

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

project = "gat_ext"
author = "The gat_ext developers"
copyright = f"2026, {author}"
version = release = gat_ext.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "cheat_sheet",
    "links",
    "reference_pages",
]
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = f"gat_ext {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "description"  # which has room for their names
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False  # a result is described in words: "int64 [B]: …" names no type
napoleon_custom_sections = ["Shapes"]
python_use_unqualified_type_names = True

# Runs an example again if its source has changed; the build fails if one fails.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "_generated/gallery",
    "example_extensions": {".py", ".cpp"},
    "filename_pattern": r"examples/\w+\.py$",  # those of C++ need a compiler
    "notebook_extensions": {".py"},
    "within_subsection_order": "ExampleTitleSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 3600,  # no times of a machine that builds sites
}
# Of libraries, while the examples run: not for readers.
warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec", FutureWarning)
for name in ("onnx_ir", "onnxscript"):  # a style of Pygments has all loggers print
    logging.getLogger(name).setLevel("WARNING")

nitpicky = True
nitpick_ignore_regex = [
    # Names in annotations: types of this package that are not public, and unqualified ones.
    ("py:class", r"gat_ext\.(graph\.protocol\.GraphLike|ops\.numbering\.Numbering)"),
    ("py:class", r"gat_ext\.datasets\._names\.Scale"),
    ("py:class", r"EdgeType|Metadata|Network|Relation|Tensor|Transform|nn\.Module|os\.PathLike"),
    # Types of other libraries, whose inventories are not read.
    (r"py:.*", r"(torch|numpy|np|scipy|networkx|nx|matplotlib|collections|pathlib|typing\w*)\b.*"),
]
