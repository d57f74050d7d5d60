"""Render the default people of `mini` with Kokoro and pack their clips: `xfavot/mini/voices.zip`.

python -m tools.mini_pack                     needs Kokoro-82M: fetch-weights kokoro
python -m tools.mini_pack data/originals/mini packs what `voices kokoro` has made
"""

from __future__ import annotations

import argparse
import io
import tempfile
import zipfile
from pathlib import Path

import av

from xfavot.mini.generate import IN_PACK, PACK, generate

BITS_PER_S = 28_000


def opus(path: Path) -> bytes:
    """Encode a WAV at 24 kHz; it stays one channel at that rate."""
    made = io.BytesIO()
    with (
        av.open(path) as source,
        av.open(made, "w", format="ogg", options={"fflags": "+bitexact"}) as target,
    ):
        track = target.add_stream("libopus", rate=24_000, layout="mono", options={"vbr": "on"})
        track.bit_rate = BITS_PER_S
        for frame in source.decode(audio=0):
            target.mux(track.encode(frame))
        target.mux(track.encode(None))
    return made.getvalue()


def main() -> None:
    """Write the pack; the same clips give the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("originals", type=Path, nargs="?")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = given.originals or generate(Path(place) / "mini", voices="kokoro", **IN_PACK)
        with zipfile.ZipFile(PACK, "w") as pack:
            for path in sorted(folder.glob("*/*.wav")):
                name = path.relative_to(folder).with_suffix(".opus").as_posix()
                pack.writestr(zipfile.ZipInfo(name), opus(path))


if __name__ == "__main__":
    main()
