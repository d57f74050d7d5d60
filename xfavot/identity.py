"""What a run is, written down: plain values, their hash, and lines for people.

Import these names from `xfavot.config`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from xfavot.settings import BOOKKEEPING, PLACES, RunConfig
from xfavot.strict import build


def to_dict(cfg: RunConfig) -> dict[str, Any]:
    """Write a run as plain values, ready for JSON; `from_dict` reads it back equal."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(cfg)))
    return plain


def from_dict(mapping: Mapping[str, Any]) -> RunConfig:
    """Read a run as strictly as a preset; a setting newer than the file takes its default.

    Raises:
        ConfigError: an unknown key, a wrong type or value.
    """
    return build(RunConfig, mapping)


def config_id(cfg: RunConfig) -> str:
    """Hash everything that can change a run's numbers.

    Names, folders, the device and how often things are logged or saved do not count, nor how a
    vocoder is trained, of which training knows nothing.

    Returns:
        The first 8 hexadecimal digits of the SHA-256 of the canonical JSON.
    """
    plain = to_dict(cfg)
    for key in PLACES:
        del plain[key]
    for key in BOOKKEEPING:
        del plain["train"][key]
    for key in [name for name in plain["pretrain"] if name.startswith("vocoder_")]:
        del plain["pretrain"][key]
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def key_of(record: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of a record as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def describe(cfg: RunConfig) -> str:
    """Say in plain lines what a run is, with the defaults it leaves in parentheses.

    Args:
        cfg: the run.

    Returns:
        Several lines, without a guess of the time it will take.
    """
    train, model = cfg.train, cfg.model
    lines = [
        f"run            {cfg.run_root}/{cfg.name}",
        f"dataset        {cfg.data.dataset} ({', '.join(cfg.data.corpora)}) in {cfg.data_root}",
        f"configuration  {cfg.configuration}, preset {cfg.preset}, seed {cfg.seed}",
        f"sizes          faces {model.image_size} x {model.image_size}, "
        f"mels {model.mel_bins} x {model.mel_frames}",
        f"training       {train.steps} steps of {train.batch_size} on {train.device}, "
        f"{train.precision}, {' and '.join(train.modalities)}",
    ]
    ours, defaults = to_dict(cfg), to_dict(RunConfig())
    skip = {"dataset", "corpora", "steps", "batch_size", *BOOKKEEPING}
    for section in ("data", "model", "loss", "pretrain", "train"):
        changed = [
            f"{name} {value} ({defaults[section][name]})"
            for name, value in ours[section].items()
            if value != defaults[section][name] and name not in skip
        ]
        if changed:
            lines.append(f"{section:<15}{', '.join(changed)}")
    return "\n".join(lines)
