"""Where a number comes from: the part of an artifact's JSON file that says so.

Nothing in it names a folder of the machine, because tables and figures are published. The git
revision is that of the package's own checkout; an installed package has none.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from xfavot.config import RunConfig, config_id, to_dict
from xfavot.data.manifest import Store
from xfavot.errors import DataError
from xfavot.parameters import INJECTED_HEAD

TIERS = ("smoke", "reduced", "paper")  # for tests; at less than the paper's size; at its size
FOLDERS = (  # never published
    *("data_root", "run_root", "out", "source", "checkpoint", "resume", "others", "study"),
    *("answers", "manifest"),
)
MAY_BE_EMPTY = ("git_revision", "git_dirty", "weights", "checkpoint", "notebook", "command")
CHECKOUT = Path(__file__).resolve().parents[2]
CODE = ("xfavot", "notebooks", "pyproject.toml")  # what can change a number


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A split of a prepared corpus: its manifest's hash and how many clips it has."""

    corpus: str
    split: str
    manifest: str
    count: int


NO_DATA = Data(corpus="none", split="none", manifest="none", count=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The trained weights that were measured."""

    step: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Everything that a table or a figure says about its origin.

    Args:
        tier: "smoke", "reduced" or "paper".
        config: the full configuration as plain values, without folders.
        config_id: its hash.
        seeds: every seed behind the numbers.
        git_revision: of the package's checkout, "" if it is none.
        git_dirty: the checkout's code differs from that revision.
        lock: hash of the names and versions of everything installed.
        dataset: name of the mixture.
        data: the splits that were used.
        weights: name to sha256 of every network that judges; empty if none does.
        checkpoint: what was measured; ``None`` if nothing trained was.
        device: processor, threads, versions; see :func:`machine`.
        started_at: ISO 8601, UTC.
        wall_s: seconds from there to the writing.
        notebook: its name, "" if it was none.
        command: what makes it again.

    Raises:
        DataError: something is missing, the tier is unknown, or a time is no number.
    """

    tier: str
    config: Mapping[str, Any]
    config_id: str
    seeds: tuple[int, ...]
    git_revision: str
    git_dirty: bool
    lock: str
    dataset: str
    data: tuple[Data, ...]
    weights: Mapping[str, str]
    checkpoint: Checkpoint | None
    device: Mapping[str, Any]
    started_at: str
    wall_s: float
    notebook: str
    command: str

    def __post_init__(self) -> None:
        """Refuse gaps."""
        empty: tuple[Any, ...] = (None, "", (), {}, [])
        missing = [
            f.name
            for f in dataclasses.fields(self)
            if f.name not in MAY_BE_EMPTY and getattr(self, f.name) in empty
        ]
        if not (self.notebook or self.command):
            missing.append("notebook or command")
        missing += [f"device.{k}" for k in ("cpu", "threads", "torch") if not self.device.get(k)]
        if missing:
            raise DataError(
                f"provenance: {', '.join(missing)} missing; expected a value for each; fill them "
                "in, or use report.collect"
            )
        if self.tier not in TIERS:
            raise DataError(f"provenance: tier {self.tier!r}; expected one of {', '.join(TIERS)}")
        if not (math.isfinite(self.wall_s) and self.wall_s >= 0):
            raise DataError(f"provenance: wall_s is {self.wall_s}; expected seconds, 0 or more")

    def record(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


@dataclass(frozen=True, slots=True)
class Beginning:
    """When the work behind an artifact began."""

    at: str
    clock: float


def begin() -> Beginning:
    """Note the time; call it before the work."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Beginning(now, time.monotonic())


def collect(
    began: Beginning,
    cfg: RunConfig,
    *,
    tier: str,
    stores: Sequence[Store],
    split: str = "train",
    seeds: Sequence[int] = (),
    weights: Mapping[str, str] | None = None,
    checkpoint: Checkpoint | None = None,
    notebook: str = "",
    command: str = "",
) -> Provenance:
    """Gather the provenance of what was measured, just before it is written.

    Args:
        began: of :func:`begin`.
        cfg: the configuration.
        tier: see :data:`TIERS`.
        stores: the prepared stores read; without any, the record says that no data were.
        split: which part of them.
        seeds: default, the configuration's.
        weights: name to sha256 of the networks that judge.
        checkpoint: the trained weights measured, if any.
        notebook: its name, such as "benchmark".
        command: default, the papermill command with the parameters that were given, or the command
            line of this process.

    Raises:
        DataError: see :class:`Provenance`.
    """
    revision, dirty = _git()
    injected = sys._getframe(1).f_globals.get("In")
    return Provenance(
        tier=tier,
        config={k: v for k, v in to_dict(cfg).items() if k not in FOLDERS},
        config_id=config_id(cfg),
        seeds=tuple(seeds) or (cfg.seed,),
        git_revision=revision,
        git_dirty=dirty,
        lock=installed(),
        dataset=cfg.data.dataset,
        data=tuple(_part(store, split) for store in stores) or (NO_DATA,),
        weights=dict(weights or {}),
        checkpoint=checkpoint,
        device=machine(cfg.train.device),
        started_at=began.at,
        wall_s=round(time.monotonic() - began.clock, 3),
        notebook=notebook,
        command=command or (_papermill(notebook, injected) if notebook else _command_line()),
    )


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the numbers were measured on: processor, cores, threads, load, versions.

    Args:
        device: as configured; a GPU is named where one is used.
    """
    used_gpu = torch.cuda.is_available() and device.startswith(("auto", "cuda"))
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if used_gpu else "",
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else "",
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": metadata.version("numpy"),
    }


def _processor() -> str:
    """The processor's name as people know it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, [*names, platform.processor(), platform.machine()]), "unknown")


def _part(store: Store, split: str) -> Data:
    count = sum(item.split == split for item in store.items)
    return Data(corpus=store.corpus, split=split, manifest=store.manifest_hash, count=count)


def _git() -> tuple[str, bool]:
    """Revision of the checkout, and whether its code was changed since."""
    if not (CHECKOUT / ".git").exists():
        return "", False
    git = ("git", "-C", str(CHECKOUT))
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60, "check": True}
    try:
        revision = subprocess.run([*git, "rev-parse", "HEAD"], **options).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "--", *CODE], **options).stdout
    except (OSError, subprocess.SubprocessError):  # no git here, or no commit yet
        return "", False
    return revision, bool(changed.strip())


def installed() -> str:
    """16 hex digits over the sorted `name==version` of every installed distribution."""
    found = {f"{d.name}=={d.version}".lower() for d in metadata.distributions()}
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]


def _papermill(notebook: str, history: object) -> str:
    """The papermill command with the parameters in the cell that papermill injected."""
    words = ["papermill", f"notebooks/{notebook}.ipynb", "out.ipynb"]
    cells = history if isinstance(history, list) else []
    for cell in [c for c in cells if isinstance(c, str) and c.startswith(INJECTED_HEAD)][-1:]:
        for node in ast.parse(cell).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name, value = node.targets[0].id, ast.literal_eval(node.value)
                text = json.dumps(value) if isinstance(value, dict | list) else str(value)
                words += [] if name in FOLDERS else ["-p", name, text]
    return shlex.join(words)


def _command_line() -> str:
    """How this process was called, without the folder of the script."""
    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
