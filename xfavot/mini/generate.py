"""Write the originals of the corpus `mini`: one folder a speaker, as a real corpus would come.

Layout: `speakers.csv` (speaker, gender), `factors.json` (hidden factors and voice of every speaker,
nuisance of every picture), `<speaker>/<sentence>.wav` (24 kHz, 16 bit), `<sentence>.txt`,
`<sentence>_0.png` and so on. Each speaker is made by a process of its own
(`python -m xfavot.mini.generate`), because synthesisers keep a state; so the bytes depend on
neither the number of workers nor what the caller's process did before.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from xfavot import fetch
from xfavot.errors import DataError, WeightsError, refusing
from xfavot.mini import speak
from xfavot.mini.people import (
    MOST_SPEAKERS,
    SCHEMA,
    TWIN,
    Nuisance,
    nuisance,
    numbers,
    person,
    sex_and_rank,
    stream,
    twin,
)
from xfavot.mini.speak import ESPEAK, KOKORO, code, sentences
from xfavot.parameters import VOICES
from xfavot.strict import nearest
from xfavot.weights import fetched

SHIPPED = "shipped"  # who speaks the default people: Kokoro did, on another machine
PACK = Path(__file__).with_name("voices.zip")  # <speaker>/<sentence>.opus
IN_PACK = {"speakers": 16, "utterances": 24, "seed": 0}


def speech_of(voices: str, *, speakers: int = 16, utterances: int = 24, seed: int = 0) -> str:
    """Say whose speech a corpus has, as its `factors.json` and store record it.

    Args:
        voices: "kokoro", "espeak", or "auto": the clips that come with the package where they are
            all that is asked for, else Kokoro.
        speakers, utterances, seed: as in :func:`generate`.

    Returns:
        "espeak"; or "shipped" or "kokoro" with the begin of the sha256 of the clips or the network.

    Raises:
        DataError: no such voices.
    """
    if voices not in VOICES:
        raise DataError(f"voices is {voices!r}; {nearest(voices, VOICES)}")
    most = IN_PACK["speakers"], IN_PACK["utterances"]
    if voices == "auto":
        inside = seed == IN_PACK["seed"] and speakers <= most[0] and utterances <= most[1]
        voices = SHIPPED if inside else KOKORO
    if voices == ESPEAK:
        return voices
    checksum = fetch.checksum_of(PACK) if voices == SHIPPED else fetched.describe(KOKORO).checksum
    return f"{voices} {checksum.partition(':')[2][:16]}"


def make_speaker(
    folder: Path,
    *,
    number: int,
    utterances: int,
    faces_per_clip: int,
    seed: int,
    speech: str,
    twins: int = 0,
    speakers: int = 0,
) -> dict[str, Any]:
    """Speak and draw everything of one speaker; meant for a fresh process.

    Args:
        folder: root of the corpus; the speaker's own folder is made in it.
        number: the speaker's, from 0; see :func:`xfavot.mini.people.numbers`.
        utterances, faces_per_clip, seed, twins, speakers: as in :func:`generate`.
        speech: of :func:`speech_of`; what is shipped is not spoken here.

    Returns:
        The speaker's entry of `factors.json`: `hidden`, `voice` and `faces`.

    Raises:
        DataError: an extra is missing.
        WeightsError: Kokoro is to speak and is not here.
    """
    import soundfile
    from PIL import Image

    from xfavot.mini.draw import draw_face

    who, kind = person(number, seed=seed), speech.partition(" ")[0]
    voice = speak.voice_of(who, sex_and_rank(number)[1], ESPEAK if kind == ESPEAK else KOKORO)
    own = folder / who.speaker
    own.mkdir()
    synthesiser = None if kind == SHIPPED else speak.SYNTHESISERS[kind]()
    faces: dict[str, Any] = {}

    def draw(name: str, pose: Nuisance) -> None:
        picture, points = draw_face(who, pose)
        Image.fromarray(picture).save(own / f"{name}.png")
        faces[name] = {**asdict(pose), "landmarks": points.round(2).tolist()}

    for clip, words in enumerate(sentences(seed, number, utterances)):
        name = code(words)
        if synthesiser is not None:
            said, rng = synthesiser.say(words, voice), stream(seed, "voice", number, clip)
            steps = np.round(speak.become(said, synthesiser.rate_hz, voice, rng) * 32767)
            soundfile.write(own / f"{name}.wav", steps.astype(np.int16), speak.SAMPLE_RATE_HZ)
        (own / f"{name}.txt").write_text(" ".join(words) + "\n", encoding="utf-8")
        for face in range(faces_per_clip):
            draw(f"{name}_{face}", nuisance(seed, number, clip, face))
    for rank in range(twins):
        group, pose = twin(seed, number, rank, speakers)
        draw(f"{TWIN}{rank}_{group}", pose)
    return {"hidden": asdict(who), "voice": asdict(voice), "faces": faces}


def _unpack(folder: Path, speaker: str, names: Iterable[str]) -> None:
    """Write clips of a speaker that come with the package."""
    from xfavot.audio.io import load_waveform, save_waveform

    with zipfile.ZipFile(PACK) as pack:
        for name in names:
            wave = load_waveform(pack.read(f"{speaker}/{name}.opus"))
            save_waveform(folder / speaker / f"{name}.wav", wave)


def _in_own_process(folder: Path, job: dict[str, Any]) -> Any:
    """Run :func:`make_speaker` where nothing of this process, its folder or threads is seen."""
    root = Path(__file__).resolve().parents[2]
    paths = [root, *(Path(path).resolve() for path in sys.path if path)]
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-m", "xfavot.mini.generate", str(folder), json.dumps(job)],
        cwd=folder,  # where no file can hide a module
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), **one},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(
            f"speaker s{job['number'] + 1:02d} of `mini` could not be made: {last}; expected exit "
            f"status 0, got {done.returncode}; free some space if the disk is full, or "
            'pip install "xfavot[mini]" if a module is missing'
        )
    return json.loads(done.stdout)


def generate(
    folder: Path,
    *,
    speakers: int = 16,
    utterances: int = 24,
    faces_per_clip: int = 4,
    seed: int = 0,
    workers: int = 2,
    voices: str = "auto",
    twins: int = 0,
    on_log: Callable[[str], None] | None = None,
) -> Path:
    """Make the embedded audio-visual corpus, or see that it is made.

    A speaker of a seed is the same in a corpus of any size, and the clips and pictures of a smaller
    corpus are among those of a larger one; but shipped clips went through Opus. Bytes depend on the
    arguments alone on one machine; on another x86-64 machine with the same versions of the
    packages, the same holds of the pixels (a PNG may be compressed otherwise). Of the sounds,
    shipped clips may differ in the last bit; in espeak-ng's, WORLD's pitch depends on the last bit
    of the C library's functions, and without their FMA code 2 of 384 clips differed, by at most 65
    steps of 16 bits; Kokoro's 8-bit network may speak otherwise on another kind of processor.

    Args:
        folder: where to; must not exist yet, be an empty folder, or hold this very corpus.
        speakers: how many, 2 to 1,000, half of them women.
        utterances: sentences a speaker.
        faces_per_clip: pictures a sentence.
        seed: equal seeds give equal corpora.
        workers: processes at a time; does not change the result.
        voices: who speaks; see :func:`speech_of`.
        twins: further pictures of each person, each in the pose of three other people's (A96);
            who these are depends on `speakers`.
        on_log: receives one line a speaker.

    Returns:
        `folder`, which appears only when it is complete.

    Raises:
        DataError: a number is too small or too large, the folder is taken (by another generator's,
            seed's or size's originals, too), cannot be written, an extra or Kokoro is missing.
    """
    log = on_log or (lambda line: None)
    shared: dict[str, Any] = {"utterances": utterances, "seed": seed}
    speech = speech_of(voices, speakers=speakers, **shared)
    shared |= {"faces_per_clip": faces_per_clip, "speech": speech}
    shared |= {"twins": twins, "speakers": speakers}
    factors = {"schema": SCHEMA, **shared}
    if not 2 <= speakers <= MOST_SPEAKERS or not 1 <= utterances <= speak.MOST_SENTENCES:
        raise DataError(
            f"mini: {speakers} speakers, {utterances} utterances each; expected 2 to "
            f"{MOST_SPEAKERS}, and 1 to {speak.MOST_SENTENCES}; choose other numbers"
        )
    folder = Path(folder).resolve()
    if _is_made(folder, factors, log):
        return folder
    if speech.startswith(KOKORO):  # once, and not in every process
        what = f"{speakers} people of seed {seed} of `mini` have no voices in the package"
        advice = "or choose voices espeak, which sound less natural"
        with refusing(WeightsError, DataError, what, advice):
            fetched.path(KOKORO)
    place = folder.with_name(f".{folder.name}.partial")
    partial = place / folder.name
    done = itertools.count(1)

    def make(number: int) -> Any:
        entry = _in_own_process(partial, {**shared, "number": number})
        if speech.startswith(SHIPPED):
            spoken = map(code, sentences(seed, number, utterances))
            _unpack(partial, entry["hidden"]["speaker"], spoken)
        log(f"mini: {entry['hidden']['speaker']} made ({next(done)} of {speakers})")
        return entry

    with fetch.alone(place):
        try:
            if _is_made(folder, factors, log):  # by another process, meanwhile
                return folder
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            partial.mkdir()
            with ThreadPoolExecutor(workers) as pool:
                entries = list(pool.map(make, numbers(speakers)))
            cast = {entry["hidden"]["speaker"]: entry for entry in entries}
            rows = [f"{who},{entry['hidden']['gender']}\n" for who, entry in cast.items()]
            table = "speaker,gender\n" + "".join(rows)
            (partial / "speakers.csv").write_text(table, encoding="utf-8")
            people = {who: {**e["hidden"], "voice": e["voice"]} for who, e in cast.items()}
            faces = {
                f"{who}/{name}": p for who, e in cast.items() for name, p in e["faces"].items()
            }
            every = {**factors, "people": people, "faces": faces}
            text = json.dumps(every, indent=1, sort_keys=True) + "\n"
            (partial / "factors.json").write_text(text, encoding="utf-8")
            if folder.exists():
                folder.rmdir()
            partial.rename(folder)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return folder


def _is_made(folder: Path, factors: Mapping[str, Any], log: Callable[[str], None]) -> bool:
    """Whether a folder holds the originals that are asked for; refuse any other content."""
    if not folder.exists() or not any(folder.iterdir()):
        return False
    record, known = folder / "factors.json", dict[str, Any]()
    with suppress(OSError, ValueError, TypeError):
        known = {"twins": 0, **json.loads(record.read_text(encoding="utf-8"))}  # older: no word
    if (there := {key: known.get(key) for key in factors}) != factors:
        raise DataError(
            f"{folder} is not empty and holds {there if known else 'other files'}; expected "
            f"{factors}, or a new folder; remove it or choose another"
        )
    log(f"mini: originals in {folder} are ready")
    return True


if __name__ == "__main__":
    made = make_speaker(Path(sys.argv[1]), **json.loads(sys.argv[2]))
    sys.stdout.write(json.dumps(made))
