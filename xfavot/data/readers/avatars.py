"""Avatars: a folder of pictures of (stylised) faces, images only.

Layout: pictures anywhere below the folder; a folder called ``female`` or ``male`` above a picture
gives its gender. Each picture goes through face detection; where none is found in a stylised face,
``aligned/`` above a picture says that it is a crop in CelebA-HQ's framing already.
"""

from __future__ import annotations

from collections.abc import Iterator

from xfavot.data.readers.source import Clip, Source, of_kind

LAYOUT = "female/*.png and male/*.png, or below aligned/ where the faces are cropped already"


def scan(source: Source) -> Iterator[Clip]:
    """Yield every picture."""
    for place, files in source.folders:
        parts = {part.casefold() for part in place.parts}
        gender = "f" if "female" in parts else "m" if "male" in parts else ""
        for path in of_kind(files, "picture"):
            name = (place / path.name).as_posix()
            aligned = "aligned" in parts
            yield Clip(name, "image", gender=gender, images=(path,), aligned=aligned)
