"""environment.yml, pyproject.toml, constraints.txt and the Makefile name the same libraries."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

import xfavot

ROOT = Path(__file__).resolve().parents[2]
ORDERED = "jupyterlab papermill torch torchaudio librosa ipywidgets matplotlib seaborn scikit-learn"
METRICS = "parallel-wavegan lpips pytorch-fid resemblyzer espnet"
WITHOUT_PINS = ("parallel-wavegan==0.6.1", "facenet-pytorch==2.6.0")


def canonical(requirement: str) -> str:
    """Name of a requirement in the index's spelling."""
    name = re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


with (ROOT / "pyproject.toml").open("rb") as opened:
    PROJECT: dict[str, Any] = tomllib.load(opened)["project"]
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
