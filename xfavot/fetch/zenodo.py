"""Files of a Zenodo record, as its API lists them.

The listing has had three forms (``key``/``size``/``links.self``, ``filename``/``filesize``/
``links.download`` of October 2023, and InvenioRDM's ``files.entries``); all are read. Since some
links of some forms lead nowhere, each file gets every link as a mirror of the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from xfavot.errors import DataError
from xfavot.fetch.remote import Remote

LINKS = ("content", "download", "self")
_DIGITS = {32: "md5", 64: "sha256"}  # hex digits of a checksum that does not name itself


def record_files(record: str, listing: str) -> list[Remote]:
    """Read the files of a record.

    Args:
        record: its address in the API, ``https://zenodo.org/api/records/<number>``.
        listing: the JSON text found there.

    Returns:
        Its files in the listing's order.

    Raises:
        DataError: the text is no listing of files.
    """
    try:
        files = json.loads(listing)["files"]
        entries = files.get("entries", files) if isinstance(files, Mapping) else files
        if isinstance(entries, Mapping):
            entries = [{"key": name, **entry} for name, entry in entries.items()]
        found = [_remote(record.rstrip("/"), entry) for entry in entries]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{record} gave no listing of files ({type(error).__name__}: {error}); expected JSON "
            "with 'files'; look at the record in a browser and fetch its files by hand"
        ) from error
    if not found:
        raise DataError(f"{record} lists no file; expected some; look at it in a browser")
    return found


def _remote(record: str, entry: Mapping[str, Any]) -> Remote:
    name = str(entry.get("key") or entry["filename"])
    links = entry.get("links") or {}
    safe = ("https://", record.partition("://")[0] + "://")  # a record of https gives no http
    urls = [str(links[kind]) for kind in LINKS if str(links.get(kind)).startswith(safe)]
    urls.append(f"{record}/files/{quote(name)}/content")
    first, *mirrors = dict.fromkeys(urls)
    return Remote(
        url=first,
        name=name,
        size=int(entry.get("size") or entry.get("filesize") or 0),
        checksum=_checksum(str(entry.get("checksum") or "")),
        mirrors=tuple(mirrors),
    )


def _checksum(text: str) -> str:
    """Write a checksum with its algorithm; one of another kind is not used."""
    digits = text.casefold().rpartition(":")[2]
    algorithm = text.casefold().rpartition(":")[0] or _DIGITS.get(len(digits), "")
    known = _DIGITS.get(len(digits)) == algorithm and re.fullmatch("[0-9a-f]+", digits)
    return f"{algorithm}:{digits}" if known else ""
