"""How `make docs` makes the site of README, docs and notebooks: Sphinx with MyST-NB and Furo."""

from typing import Any

project = author = "XFaVoT"
extensions = ["myst_nb"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "notebooks/*.ipynb", "xfavot/weights/*.md"]
exclude_patterns = ["CHANGELOG.md"]
nb_execution_mode = "off"  # what is shown was executed by people or by make
nb_output_stderr = "remove"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "toc.not_included", "mystnb.unknown_mime_type"]
html_theme = "furo"
html_title = "XFaVoT"
html_show_copyright = False
PAGES = {
    "Start": "docs/own_data docs/training docs/evaluation docs/faq docs/security",
    "Notebooks": "notebooks/demo notebooks/explore notebooks/method notebooks/prepare_data "
    "notebooks/pretrain notebooks/train notebooks/baseline notebooks/evaluate notebooks/cpr_study "
    "notebooks/figures notebooks/tables notebooks/paper notebooks/benchmark",
    "Reference": "docs/mini docs/trials ASSUMPTIONS DATASETS WEIGHTS docs/development",
}


def add_contents(app: Any, name: str, source: list[str]) -> None:
    """Put the table of contents, which a reader of the repository does not need, below README."""
    for title, pages in PAGES.items() if name == root_doc else ():
        entries = "\n".join(pages.split())
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{entries}\n```\n"


def setup(app: Any) -> None:
    """Register what is above."""
    app.connect("source-read", add_contents)
