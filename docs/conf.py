"""How `make docs` makes the site of README, docs and notebooks: Sphinx with MyST-NB and Furo."""

from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml

project = author = "XFaVoT"
extensions = ["myst_nb"]
root_doc = "README"
include_patterns = [
    *("*.md", "docs/*.md", "docs/systems/*.md", "notebooks/*.ipynb"),
    *("xfavot/weights/*.md", "xfavot/weights/model/README.md"),
]
exclude_patterns = ["CHANGELOG.md"]
nb_execution_mode = "off"  # what is shown was executed by people or by make
nb_output_stderr = "remove"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "toc.not_included", "mystnb.unknown_mime_type"]
html_math_renderer = "mathml"  # browsers draw it themselves, without a network
html_theme = "furo"
html_title = "XFaVoT"
html_show_copyright = False
PAGES = {
    "Start": "docs/own_data docs/training docs/evaluation docs/faq docs/security",
    "Results": "tables figures",
    "Notebooks": "notebooks/demo notebooks/explore notebooks/method notebooks/prepare_data "
    "notebooks/pretrain notebooks/train notebooks/baseline notebooks/evaluate notebooks/cpr_study "
    "notebooks/associate notebooks/figures notebooks/tables notebooks/paper notebooks/benchmark",
    "Systems": "docs/systems/xfavot docs/systems/companion docs/systems/starganv2 "
    "docs/systems/starganv2vc_oneshot docs/systems/joint docs/systems/joint_xm "
    "docs/systems/dual_no_xm docs/systems/adain_vc docs/systems/adain_cvc "
    "docs/systems/fragment_vc docs/systems/vclip docs/systems/sgsim",
    "Reference": "docs/mini docs/trials ASSUMPTIONS DATASETS WEIGHTS docs/development",
}


def write_results(app: Any) -> None:
    """Make a page of all tables and one of all figures that are in the repository."""
    root, pages = Path(app.srcdir), {"tables": "# Tables\n", "figures": "# Figures\n"}
    for file in sorted(root.glob("paper_tables/*/*.md"), key=order):
        pages["tables"] += (
            f"\n## {file.stem.replace('_', ' ').capitalize()}\n\n{file.read_text()}\n"
        )
    for file in sorted(root.glob("figures/fig*/*.png"), key=order):
        pages["figures"] += f"\n## Figure {file.stem[3:]}\n\n![]({file.relative_to(root)})\n"
    for name, text in pages.items():
        (root / f"{name}.md").write_text(text, encoding="utf-8")


def order(file: Path) -> tuple[int, str]:
    """Sort by the number in a name, those without one last."""
    digits = "".join(sign for sign in file.stem if sign.isdigit())
    return int(digits or 99), file.stem


def add_contents(app: Any, name: str, source: list[str]) -> None:
    """Put the table of contents, which a reader of the repository does not need, below README."""
    if name == root_doc:
        source[0] = (
            source[0].replace("(paper_tables)", "(tables.md)").replace("(figures)", "(figures.md)")
        )
        for title, pages in PAGES.items():
            entries = "\n".join(pages.split())
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{entries}\n```\n"


def equation(translator: Any, node: Any) -> None:
    """Write an equation as MathML; what docutils cannot read as it is."""
    block = node.tagname == "math_block"
    try:
        text = tex2mathml(node.astext().replace(r"\big", ""), as_block=block)
    except MathError:
        text = f"<code>{translator.encode(node.astext())}</code>"
    translator.body.append(f"<div>{text}</div>" if block else text)
    raise SkipNode


def setup(app: Any) -> None:
    """Register what is above."""
    app.add_html_math_renderer("mathml", (equation, None), (equation, None))
    app.connect("builder-inited", write_results)
    app.connect("source-read", add_contents)
