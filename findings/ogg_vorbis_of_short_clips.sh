#!/usr/bin/env bash
# PyAV 18.1.0: an Ogg Vorbis clip of a few seconds comes out up to 18 ms shorter or longer
#
# Guessed:  decoding every packet of an Ogg Vorbis file that libsndfile wrote gives as many samples as
#           were written, since the last page of Ogg says where the stream ends.
# Seen:     at 24 kHz a tone of 1 s (24,000 samples) gives 24,448, one of 2 s (48,000) 47,744, one of
#           5 s the right 120,000; libsndfile reads all three in full. stream.duration says the right
#           number every time. In the 1 s file the last packet has a duration of 4,294,967,104: a
#           negative one, cut to 32 bits. No error and no warning.
# Matters:  corpora of single words and GRID-like sentences are kept as Ogg; a decoded clip that is
#           longer or shorter than its labels shifts alignments, and "length equals duration" is no
#           test of a whole file. Trim to stream.duration and do not sum packet durations.
# Fails when the three lengths are right, or wrong in another way.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q av==18.1.0 soundfile==0.14.0 numpy==2.3.5
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys

import av
import numpy as np
import soundfile

RATE, file = 24_000, f"{sys.argv[1]}/tone.ogg"
seen = {}
for written in (24_000, 48_000, 120_000):
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(written) / RATE)
    soundfile.write(file, tone, RATE, format="OGG", subtype="VORBIS")
    assert len(soundfile.read(file)[0]) == written
    with av.open(file) as container:
        stream = container.streams.audio[0]
        assert stream.duration == written
        decoded = sum(frame.samples for frame in container.decode(stream))
    with av.open(file) as container:
        longest = max(packet.duration or 0 for packet in container.demux(audio=0))
    seen[written] = decoded
    print(f"written {written}, decoded {decoded}, longest packet {longest}")
    if written == 24_000:
        assert longest > 2**31, longest
assert seen == {24_000: 24_448, 48_000: 47_744, 120_000: 120_000}, seen
PY
