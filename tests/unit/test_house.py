"""House rules that no linter knows: files, notebooks, assumption ids, libraries."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import xfavot
from tests.conftest import ROOT
from xfavot import config, parameters

SOURCES = sorted((ROOT / "xfavot").rglob("*.py"))
NOTEBOOKS = [path.with_suffix(".ipynb") for path in sorted((ROOT / "notebooks").glob("*.py"))]
MOST_LINES = 700
MOST_CELL_LINES = 25  # a laptop's screen
FORBIDDEN_IN_CELLS = (ast.ClassDef, ast.Try, ast.Global)
LIBRARIES = "xfavot IPython pathlib numpy pandas torch matplotlib seaborn sklearn"
NOTEBOOK_IMPORTS = set(LIBRARIES.split())


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_source_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= MOST_LINES
    assert ast.get_docstring(tree), "a module file starts with its docstring"
    assert path.stem not in {"utils", "util", "common", "helpers", "misc"}
    calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
    assert not [c for c in calls if isinstance(c, ast.Name) and c.id in {"print", "input"}]
    bare = [n for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and n.type is None]
    assert not bare, "a bare except hides errors"
    compiled = [c for c in calls if ast.unparse(c) == "torch.compile"]
    assert not compiled, "it has no second derivative, which R1 needs (PyTorch 2.12 and 2.14)"


def test_assumption_ids_and_switches_exist() -> None:
    table = (ROOT / "ASSUMPTIONS.md").read_text(encoding="utf-8")
    ids = re.findall(r"^\| (A\d+) \|", table, flags=re.MULTILINE)
    assert len(ids) == len(set(ids))
    presets = sorted((ROOT / "xfavot" / "presets").rglob("*.yaml"))
    for path in [*SOURCES, *presets]:
        used = set(re.findall(r"\bA\d{1,3}\b|\bA-[A-Z]+\b", path.read_text(encoding="utf-8")))
        assert used <= set(ids), f"{name_of(path)}: {sorted(used - set(ids))} not in ASSUMPTIONS.md"
    settings = config.to_dict(config.RunConfig())
    for section, name in re.findall(r"`(data|model|loss|pretrain|train)\.(\w+)`", table):
        assert name in settings[section], f"{section}.{name}"


def read(path: Path) -> Any:
    return pytest.importorskip("jupytext").read(path)


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def tree_of(cell: Any) -> ast.Module:
    lines = cell.source.splitlines()
    return ast.parse("\n".join(line for line in lines if not line.startswith(("%", "!"))))


def is_parameters(cell: Any) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebook_cells_are_short_and_plain(path: Path) -> None:
    cells = read(path).cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    for cell in code_cells(path):
        tree = tree_of(cell)
        found = [type(n).__name__ for n in ast.walk(tree) if isinstance(n, FORBIDDEN_IN_CELLS)]
        assert not found, f"{found} in:\n{cell.source}"
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {n.split(".")[0] for n in names} <= NOTEBOOK_IMPORTS, cell.source
        lines = [x for x in cell.source.splitlines() if x.strip() and not x.strip().startswith("#")]
        assert is_parameters(cell) or len(lines) <= MOST_CELL_LINES, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebook_is_committed_stripped_and_in_step_with_its_source(path: Path) -> None:
    assert "papermill" not in read(path).metadata
    assert not [c for c in code_cells(path) if c.outputs or c.execution_count is not None]
    assert set(NOTEBOOKS) == set(path.parent.glob("*.ipynb")), "run make notebooks"
    made, source = (
        [(c.cell_type, c.source, c.metadata.get("tags")) for c in read(p).cells]
        for p in (path, path.with_suffix(".py"))
    )
    assert made == source, "run make notebooks"


def declared(cls: type[parameters.Parameters]) -> str:
    """The parameter cell of a notebook: ``name: type = literal  # help`` a line."""
    lines = []
    for entry in dataclasses.fields(cls):
        made = entry.default_factory
        default = entry.default if made is dataclasses.MISSING else made()
        literal = json.dumps(default) if isinstance(default, str | dict) else repr(default)
        kind = str(entry.type).split("[")[0]
        assert type(default).__name__ == kind, entry.name
        assert "=" not in literal, f"papermill hides this parameter: {entry.name}"
        assert entry.metadata["help"], entry.name
        lines.append(f"{entry.name}: {kind} = {literal}  # {entry.metadata['help']}")
    return "\n".join(lines)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebook_declares_and_passes_every_parameter(path: Path) -> None:
    nodes = [node for cell in code_cells(path) for node in ast.walk(tree_of(cell))]
    calls = [n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    (call,) = [one for one in calls if one.func.attr == "resolve"]  # type: ignore[attr-defined]
    cls = getattr(parameters, ast.unparse(call.func).removesuffix(".resolve"))
    (cell,) = [cell for cell in code_cells(path) if is_parameters(cell)]
    assert cell.source == declared(cls)
    passed = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    assert passed == {entry.name: entry.name for entry in dataclasses.fields(cls)}
    assert not call.args


def test_the_site_has_every_page() -> None:
    pages = (ROOT / "docs" / "conf.py").read_text("utf-8").split("PAGES = {")[1].split("}")[0]
    named = set(re.findall(r"[\w/]+", pages))
    there = [*NOTEBOOKS, *(ROOT / "docs").glob("*.md")]
    assert {str(path.relative_to(ROOT).with_suffix("")) for path in there} <= named


# What is installed: four files name the same libraries


ORDERED = "jupyterlab papermill torch torchaudio librosa ipywidgets matplotlib seaborn scikit-learn"
METRICS = "parallel-wavegan lpips pytorch-fid resemblyzer espnet"
WITHOUT_PINS = (
    *("parallel-wavegan==0.6.1", "facenet-pytorch==2.6.0"),
    *("distillmos==0.9.1", "xls-r-sqa==0.1.0"),
)


def canonical(requirement: str) -> str:
    """Name of a requirement in the index's spelling."""
    name = re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
ENVIRONMENT: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


REQUIREMENTS = [*PROJECT["dependencies"], *(r for n, e in EXTRAS.items() if n != "all" for r in e)]
REQUIREMENTS = [r for r in REQUIREMENTS if canonical(r) != "setuptools"]  # in conda's section


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, version in pairs}


def test_environment_names_what_the_project_needs_and_what_was_ordered() -> None:
    pip = next(d["pip"] for d in ENVIRONMENT["dependencies"] if isinstance(d, dict))
    named = {canonical(entry) for entry in pip if not entry.startswith("-")}
    assert named == set(map(canonical, REQUIREMENTS))
    assert named | set(map(canonical, WITHOUT_PINS)) >= {*ORDERED.split(), *METRICS.split()}
    (everything,) = EXTRAS["all"]
    assert set(everything[len("xfavot[") : -1].split(",")) == set(EXTRAS) - {"all"}


def test_pip_and_packages_without_pins_are_said_everywhere() -> None:
    makefile, header = (
        ROOT.joinpath(n).read_text("utf-8") for n in ("Makefile", "environment.yml")
    )
    for requirement in WITHOUT_PINS:
        assert requirement in makefile
        assert requirement in header
        name, version = requirement.split("==")
        assert pins()[canonical(name)] == version
    pip = next(d for d in ENVIRONMENT["dependencies"] if str(d).startswith("pip="))
    assert pip.replace("=", "==") in makefile
    assert not [name for name, version in pins().items() if "+" in version or "@" in version]


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    pinned = pins()
    for text in REQUIREMENTS:
        assert pinned[canonical(text)] in Requirement(text).specifier, text


def test_version_stands_once() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == xfavot.__version__


DOCUMENTED = re.compile(r"overrides\s+(['\"])(.+?)\1", re.DOTALL)


def test_settings_in_documented_commands_are_taken() -> None:
    texts = [*ROOT.joinpath("docs").glob("*.md")]
    texts += [ROOT / "README.md", *ROOT.joinpath("notebooks").glob("*.py")]
    texts += ROOT.joinpath("xfavot", "weights").rglob("*.md")
    found = [
        (path.name, re.sub(r"\s*\n#?\s*", " ", given))
        for path in texts
        for _, given in DOCUMENTED.findall(path.read_text("utf-8"))
    ]
    assert len(found) >= 7
    for name, given in found:
        wanted = yaml.safe_load(given)
        run = parameters.Train.resolve(configuration="companion", overrides=given).run
        for key, value in wanted.items():
            section, _, setting = key.partition(".")
            taken = getattr(getattr(run, section), setting)
            assert (list(taken) if isinstance(value, list) else taken) == value, (name, key)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the Makefile, whose Python only notes what it is asked, and has torch+cpu."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        tmp_path.joinpath(name).write_text("numpy==2.4.6\n", encoding="utf-8")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    noted = '#!/bin/sh\necho "$*" >> asked\ncase "$*" in -c*|*+cpu*) exit 1;; esac\n'
    python.write_text(noted, encoding="utf-8")
    python.chmod(0o755)
    tmp_path.joinpath(".venv", ".ready").touch()
    return tmp_path


def made(place: Path, *what: str) -> list[str]:
    """What Python was asked, in its order, after a call of make."""
    subprocess.run(["make", *what], cwd=place, check=True, capture_output=True)
    return place.joinpath("asked").read_text("utf-8").splitlines()


def test_setup_replaces_what_lean_installed(place: Path) -> None:
    place.joinpath(".venv", ".lean").touch()
    asked = made(place, "setup")
    assert asked[1].endswith("uninstall -q -y torch")
    assert "[all]" in asked[2]
    assert not place.joinpath(".venv", ".lean").exists()
    assert made(place, "lean") == asked  # all is there


def test_lean_takes_the_usual_pytorch_where_no_other_can_be_had(place: Path) -> None:
    asked = made(place, "lean")
    assert "torch==2.12.1+cpu" in asked[0]
    assert asked[1].endswith("-c constraints.txt torch")
    assert "[demo]" in asked[2]
    assert place.joinpath(".venv", ".lean").exists()
