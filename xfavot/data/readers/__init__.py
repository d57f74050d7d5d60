"""Readers: each turns a folder of a corpus's originals into `Clip` records.

Nothing has to be renamed: every reader accepts the corpus's original layout. The folder given is
the corpus's own or one that holds one folder a corpus. Every file below the corpus's folder ends up
as (part of) a clip, is read as a table or a transcript, becomes a `Reject` of its own, or is
counted in a `Reject` of a class of files that are left out on purpose.

Lineage: design of this project; the layouts are those of the corpora's owners.
"""

from xfavot.data.readers import layouts
from xfavot.data.readers.source import (
    NOT_NEEDED,
    NOT_REJECTED,
    NOTED,
    READERS,
    VAL_SHARE,
    Clip,
    Reject,
    corpus_folder,
    fraction,
    printable,
)

__all__ = [
    "NOTED",
    "NOT_NEEDED",
    "NOT_REJECTED",
    "READERS",
    "VAL_SHARE",
    "Clip",
    "Reject",
    "corpus_folder",
    "fraction",
    "layouts",
    "printable",
]
