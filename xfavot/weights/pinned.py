"""The table of weights that the package does not ship: one file a set in `xfavot/presets/weights/`.

Sizes and checksums are those of the files at the addresses, or of public records of them; what
nobody publishes stays empty. Each file says where its figures are from.
"""

from __future__ import annotations

from dataclasses import dataclass

from xfavot import presets
from xfavot.errors import ConfigError
from xfavot.fetch.progress import size_text
from xfavot.strict import build


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One set of weights as `xfavot/presets/weights/<name>.yaml` describes it.

    Attributes:
        name: of the set.
        title, purpose: what it is and what it is for.
        licence, terms: of the weights, and where that stands.
        file: what it is called on the disk.
        url, mirrors: addresses of the file, tried in order.
        record: in their place, a record in Zenodo's API, which tells size and checksum.
        bytes: of the file; 0 if not published.
        checksum: ``"sha256:..."``; ``""`` if not published.
        begins: where only this much is published, ``"sha256:"`` and the first digits.
        told: in words, how large it is where `bytes` is not known.
        holds: of an archive, a pattern of the file in it whose folder is wanted.
        package, inside, install: the Python package that brings the file, where in it, and how to
            install it.
    """

    name: str
    title: str
    purpose: str
    licence: str
    terms: str
    file: str
    url: str = ""
    mirrors: tuple[str, ...] = ()
    record: str = ""
    bytes: int = 0
    checksum: str = ""
    begins: str = ""
    told: str = ""
    holds: str = ""
    package: str = ""
    inside: str = ""
    install: str = ""

    @property
    def size_words(self) -> str:
        """How large it is."""
        told = self.told.partition(" (")[0]
        return size_text(self.bytes) if self.bytes else told or "size not published"

    @property
    def source_words(self) -> str:
        """Where it comes from."""
        ways = [f"with the package {self.package} ({self.install})"] if self.package else []
        ways += [f"from {self.url or self.record}"] if self.url or self.record else []
        return ", or ".join(ways)


def names() -> tuple[str, ...]:
    """List the sets."""
    return presets.names("weights")


def describe(name: str) -> Weights:
    """Read the description of a set.

    Raises:
        ConfigError: no such set, or its file has unknown, missing or contradictory entries.
    """
    where = f"weights/{name}.yaml"
    try:
        known = build(Weights, {**presets.load("weights", name), "name": name}, where)
        ways = bool(known.url) + bool(known.record) + (not known.url and bool(known.package))
        if ways != 1 or bool(known.package) != bool(known.inside):
            raise TypeError("it names no way, or two, to its file")
    except TypeError as error:
        raise ConfigError(
            f"{where}: {error}; expected title, purpose, licence, terms, file, and url, record or "
            "package with inside; correct it"
        ) from error
    return known
