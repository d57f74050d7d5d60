"""Notebooks run by papermill in this process, where everything that they import is there already.

A kernel of its own would start and import for ten seconds a notebook.
"""

from __future__ import annotations

import base64
import types
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import papermill
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbformat.v4 import new_output
from papermill.engines import Engine, papermill_engines
from traitlets.config import Config

from tests.conftest import ROOT
from xfavot.viz import drawing


class InProcess(Engine):
    """Runs every notebook in a new shell; one may run another."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, stdout_file: Any = None, **_: Any
    ) -> None:
        outer = InteractiveShell._instance
        settings = Config({"HistoryManager": {"enabled": False}})
        shell = InteractiveShell(config=settings, user_module=types.ModuleType("notebook"))
        InteractiveShell._instance = shell
        try:
            with mpl.rc_context(), pytest.MonkeyPatch.context() as patch:
                patch.setitem(drawing.RC, "savefig.dpi", 80.0)  # half of the usual, for time
                for number, cell in enumerate(nb_man.nb.cells):
                    if cell.cell_type == "code" and not run(
                        nb_man, number, cell, shell, stdout_file
                    ):
                        break
        finally:
            InteractiveShell._instance = outer


def run(nb_man: Any, number: int, cell: Any, shell: InteractiveShell, stdout_file: Any) -> bool:
    """Run a cell; whether it ended well."""
    nb_man.cell_start(cell, number)
    with shell.display_trap, capture_output() as caught:
        result = shell.run_cell(cell.source, store_history=True)
    cell.outputs = [new_output("stream", name="stdout", text=caught.stdout)]
    for one in caught.outputs:
        data = {
            kind: base64.b64encode(content).decode() if isinstance(content, bytes) else content
            for kind, content in one.data.items()
        }
        cell.outputs.append(new_output("display_data", data))
    if stdout_file:
        stdout_file.write(caught.stdout)
    if error := result.error_before_exec or result.error_in_exec:
        name, text = type(error).__name__, str(error)
        said = new_output("error", ename=name, evalue=text, traceback=[f"{name}: {text}"])
        cell.outputs.append(said)
    nb_man.cell_complete(cell, number)
    return not error


papermill_engines.register(None, InProcess)  # also of notebooks that a notebook runs


def execute(name: str, folder: Path, **parameters: Any) -> str:
    """Run a notebook as people do, from the repository's root; return all its text output."""
    out = folder / f"{name}.ipynb"
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    papermill.execute_notebook(notebook, out, parameters, cwd=ROOT, progress_bar=False)
    cells = nbformat.read(out, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "\n".join(
        text
        for output in outputs
        for text in (output.get("text", ""), *output.get("data", {}).values())
        if isinstance(text, str)
    )
