"""Avatars: a folder of pictures of (stylised) faces, images only.

Layout: pictures anywhere below the folder; a folder called ``female`` or ``male`` above a picture
gives its gender. Each picture goes through face detection; where none is found in a stylised face,
``aligned/`` above a picture says that it is a crop in CelebA-HQ's framing already.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers import Clip, corpus_folder, media_kind, walk

LAYOUT = "female/*.png and male/*.png, or below aligned/ where the faces are cropped already"


def scan(source: Path, *, seed: int) -> Iterator[Clip]:
    """Yield every picture."""
    del seed  # the split of a picture is its hash; see `Clip.split`
    root = corpus_folder(source, "avatars")
    for folder, files in walk(root):
        parts = {part.casefold() for part in folder.relative_to(root).parts}
        gender = "f" if "female" in parts else "m" if "male" in parts else ""
        for path in files:
            if media_kind(path) == "picture":
                yield Clip(
                    id=path.relative_to(root).as_posix(),
                    kind="image",
                    gender=gender,
                    images=(path,),
                    aligned="aligned" in parts,
                )
