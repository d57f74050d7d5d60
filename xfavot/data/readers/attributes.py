"""Attribute lists of CelebA and CelebAMask-HQ: which image shows a man.

Forms: a number of rows, a row of 40 attributes, then rows of a name and 40 values (CelebA's
``list_attr_celeba.txt``, ``CelebAMask-HQ-attribute-anno.txt``); or the same with commas and a title
for the name (``list_attr_celeba.csv``). Values are 1 and -1 (or 0). CelebA-HQ numbers its images
anew; ``CelebA-HQ-to-CelebA-mapping.txt`` tells CelebA's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from xfavot.data.readers import read_text

ATTRIBUTE = "Male"
_TITLES = frozenset({"image_id", "image", "image_name", "filename", "file", "name", "id"})
_VALUES = {"1": "m", "-1": "f", "0": "f"}


@dataclass(frozen=True, slots=True)
class AttributeList:
    """Image to gender, by name without suffix; it remembers which rows were of use.

    Attributes:
        path: the list.
        genders: ``"f"`` or ``"m"`` by name.
        malformed: rows that do not fit or contradict each other, for people.
        used: names that an image has asked for.
    """

    path: Path
    genders: dict[str, str]
    malformed: list[str]
    used: set[str] = field(default_factory=set)

    def gender(self, stem: str, mapping: Mapping[int, str]) -> str:
        """Return the gender of an image, ``""`` if no row tells.

        Args:
            stem: the image's name without suffix; ``00004`` is found as ``4`` too.
            mapping: CelebA-HQ's number to the name in CelebA.
        """
        number = int(stem) if stem.isascii() and stem.isdigit() else -1
        for name in (stem, str(number), mapping.get(number, "")):
            if name in self.genders:
                self.used.add(name)
                return self.genders[name]
        return ""

    def unused(self) -> list[str]:
        """Return the names that no image has asked for."""
        return [name for name in self.genders if name not in self.used]


def read_attributes(path: Path) -> AttributeList:
    """Read an attribute list; one without a column `Male` is empty."""
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines[:3]):
        separator = "," if "," in line else None
        titles = [cell.strip() for cell in line.split(separator)]
        if ATTRIBUTE in titles:
            return _read_rows(path, lines, number + 1, titles, separator)
    return AttributeList(path, {}, [])


def _read_rows(
    path: Path, lines: list[str], start: int, titles: list[str], separator: str | None
) -> AttributeList:
    name_at = next((i for i, title in enumerate(titles) if title.casefold() in _TITLES), -1)
    untitled = name_at < 0  # the name's column then stands before the first title
    width, male_at = len(titles) + untitled, titles.index(ATTRIBUTE) + untitled
    genders: dict[str, str] = {}
    malformed: list[str] = []
    contradictory: set[str] = set()
    for number, line in enumerate(lines[start:], start + 1):
        cells = [cell.strip() for cell in line.split(separator)]
        if not any(cells):
            continue
        name = PurePath(cells[max(name_at, 0)]).stem if len(cells) == width else ""
        code = _VALUES.get(cells[male_at], "") if name else ""
        if not code:
            malformed.append(f"line {number} ({line.strip()[:40]!r})")
        elif genders.setdefault(name, code) != code:
            malformed.append(f"line {number} ({name} is {genders[name]!r} elsewhere)")
            contradictory.add(name)
    for name in contradictory:
        del genders[name]
    return AttributeList(path, genders, malformed)


def read_mapping(path: Path) -> dict[int, str]:
    """Read CelebA-HQ's number to the name in CelebA, without suffix (idx, orig_idx, orig_file)."""
    rows = [line.split() for line in read_text(path).splitlines()]
    return {
        int(row[0]): PurePath(row[2]).stem for row in rows if len(row) == 3 and row[0].isdigit()
    }
