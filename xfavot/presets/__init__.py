"""Presets, configurations, datasets and corpora as YAML files, and the strict reader of them.

`sizes/` holds how large a run is, `configurations/` the rows of the paper's tables, `baselines/`
the compared systems by their sizes, `datasets/` the mixtures of corpora, `corpora/` what is known
of each corpus, `weights/` what weights are not shipped, `vocoders/` the published sizes of
vocoders. A file may name one base of its own kind with `extends:`.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from xfavot.errors import ConfigError
from xfavot.strict import merge, nearest, typed

FOLDER = Path(__file__).resolve().parent
KINDS = {
    "sizes": "preset",
    "configurations": "configuration",
    "datasets": "dataset",
    "corpora": "corpus",
    "vocoders": "vocoder",
    "baselines": "system and preset",
    "weights": "set of weights",
}


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, which plain YAML silently overwrites."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping, refusing duplicates."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"{key!r} stands twice (line {line}); expected once; remove one")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse(text: str, where: str) -> dict[str, Any]:
    """Read a YAML mapping.

    Args:
        text: the YAML source.
        where: file or parameter name, for messages.

    Returns:
        The mapping; an empty text gives an empty one.

    Raises:
        ConfigError: it is not YAML, not a mapping, or a key stands twice or is no text.
    """
    try:
        loaded = yaml.load(text, Loader=_StrictLoader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{where} cannot be read as YAML: {error}; expected 'name: value' lines; correct it"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    loaded = typed({} if loaded is None else loaded, dict, where)
    return {typed(key, str, f"a key of {where}"): value for key, value in loaded.items()}


def names(kind: str) -> tuple[str, ...]:
    """List what exists of a kind: one of `KINDS`."""
    return tuple(sorted(path.stem for path in (FOLDER / kind).glob("*.yaml")))


def load(kind: str, name: str) -> dict[str, Any]:
    """Read one preset file with the base it extends laid under it.

    Args:
        kind: one of `KINDS`.
        name: the file's name without its ending.

    Returns:
        The merged mapping, without `extends` and `description`.

    Raises:
        ConfigError: no such file (naming the nearest), or a malformed one.
    """
    if name not in names(kind):
        raise ConfigError(f"{KINDS[kind]} is {name!r}; {nearest(str(name), names(kind))}")
    path = FOLDER / kind / f"{name}.yaml"
    layer = parse(path.read_text(encoding="utf-8"), f"{kind}/{path.name}")
    base = layer.pop("extends", "")
    layer.pop("description", None)
    return merge(load(kind, base), layer) if base else layer
