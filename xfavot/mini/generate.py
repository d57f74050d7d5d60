"""Write the originals of the corpus `mini`: one folder a speaker, as a real corpus would come.

Layout: `speakers.csv` (speaker, gender), `factors.json` (hidden factors and voice of every speaker,
nuisance of every picture), `<speaker>/<sentence>.wav` (24 kHz, 16 bit), `<sentence>.txt`,
`<sentence>_0.png` and so on. Each speaker is made by a process of its own
(`python -m xfavot.mini.generate`), because espeak-ng keeps a state; so the bytes depend on
neither the number of workers nor what the caller's process did before.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from xfavot.errors import DataError
from xfavot.mini.people import (
    MOST_SPEAKERS,
    SCHEMA,
    nuisance,
    numbers,
    person,
    sex_and_rank,
    stream,
)
from xfavot.mini.speak import MOST_SENTENCES


def make_speaker(
    folder: Path, *, number: int, utterances: int, faces_per_clip: int, seed: int
) -> dict[str, Any]:
    """Speak and draw everything of one speaker; meant for a fresh process.

    Args:
        folder: root of the corpus; the speaker's own folder is made in it.
        number: the speaker's, from 0; see :func:`xfavot.mini.factors.numbers`.
        utterances, faces_per_clip, seed: as in :func:`generate`.

    Returns:
        The speaker's entry of `factors.json`: `hidden`, `voice` and `faces`.

    Raises:
        DataError: an extra is missing.
    """
    import soundfile
    from PIL import Image

    from xfavot.mini.draw import draw_face
    from xfavot.mini.speak import SAMPLE_RATE_HZ, Espeak, become, code, sentences, voice_of

    who = person(number, seed=seed)
    voice = voice_of(who, sex_and_rank(number)[1])
    own = folder / who.speaker
    own.mkdir()
    espeak = Espeak()
    faces: dict[str, Any] = {}
    for clip, words in enumerate(sentences(seed, number, utterances)):
        name = code(words)
        said = espeak.say(words, voice=voice.base, words_per_minute=voice.words_per_minute)
        samples = become(said, espeak.rate_hz, voice, stream(seed, "voice", number, clip))
        steps = np.round(samples * 32767).astype(np.int16)
        soundfile.write(own / f"{name}.wav", steps, SAMPLE_RATE_HZ)
        (own / f"{name}.txt").write_text(" ".join(words) + "\n", encoding="utf-8")
        for face in range(faces_per_clip):
            pose = nuisance(seed, number, clip, face)
            picture, points = draw_face(who, pose)
            Image.fromarray(picture).save(own / f"{name}_{face}.png")
            faces[f"{name}_{face}"] = {**asdict(pose), "landmarks": points.round(2).tolist()}
    return {"hidden": asdict(who), "voice": asdict(voice), "faces": faces}


def _in_own_process(folder: Path, job: dict[str, int]) -> dict[str, Any]:
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
            f'status 0, got {done.returncode}; pip install "xfavot[mini]" if a module is missing'
        )
    entry: dict[str, Any] = json.loads(done.stdout)
    return entry


def generate(
    folder: Path,
    *,
    speakers: int = 16,
    utterances: int = 24,
    faces_per_clip: int = 4,
    seed: int = 0,
    workers: int = 2,
    on_log: Callable[[str], None] | None = None,
) -> Path:
    """Make the embedded audio-visual corpus.

    A speaker of a seed is the same in a corpus of any size, and the clips and pictures of a smaller
    corpus are among those of a larger one. Bytes depend on the arguments alone on one machine; on
    another x86-64 machine with the same versions of the packages, the same holds of the pixels (a
    PNG may be compressed otherwise) and of nearly all sounds: WORLD's pitch depends on the last bit
    of the C library's functions, and without their FMA code 2 of 384 clips differed, by at most 65
    steps of 16 bits.

    Args:
        folder: where to; must not exist yet, or be an empty folder.
        speakers: how many, 2 to 1,000, half of them women.
        utterances: sentences a speaker.
        faces_per_clip: pictures a sentence.
        seed: equal seeds give equal corpora.
        workers: processes at a time; does not change the result.
        on_log: receives one line a speaker.

    Returns:
        `folder`, which appears only when it is complete.

    Raises:
        DataError: a number is too small or too large, the folder is taken, or an extra is missing.
    """
    shared = {"utterances": utterances, "faces_per_clip": faces_per_clip, "seed": seed}
    if not 2 <= speakers <= MOST_SPEAKERS or not 1 <= utterances <= MOST_SENTENCES:
        raise DataError(
            f"mini: {speakers} speakers, {utterances} utterances each; expected 2 to "
            f"{MOST_SPEAKERS}, and 1 to {MOST_SENTENCES}; choose other numbers"
        )
    folder = Path(folder).resolve()
    if folder.exists() and any(folder.iterdir()):
        raise DataError(
            f"{folder} is not empty; expected a new folder for the corpus `mini`; "
            "remove it or choose another"
        )
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    done = itertools.count(1)

    def make(number: int) -> dict[str, Any]:
        entry = _in_own_process(partial, {**shared, "number": number})
        if on_log is not None:
            on_log(f"mini: {entry['hidden']['speaker']} made ({next(done)} of {speakers})")
        return entry

    try:
        with ThreadPoolExecutor(workers) as pool:
            entries = list(pool.map(make, numbers(speakers)))
        cast = {entry["hidden"]["speaker"]: entry for entry in entries}
        rows = [f"{who},{entry['hidden']['gender']}\n" for who, entry in cast.items()]
        (partial / "speakers.csv").write_text("speaker,gender\n" + "".join(rows), encoding="utf-8")
        people = {who: {**e["hidden"], "voice": e["voice"]} for who, e in cast.items()}
        faces = {f"{who}/{name}": p for who, e in cast.items() for name, p in e["faces"].items()}
        factors = {"schema": SCHEMA, "speakers": speakers, **shared, "people": people}
        factors["faces"] = faces
        text = json.dumps(factors, indent=1, sort_keys=True) + "\n"
        (partial / "factors.json").write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def originals(
    folder: Path, *, speakers: int, seed: int, workers: int, on_log: Callable[[str], None]
) -> Path:
    """Make the corpus as :func:`generate` does by default, or see that it is made.

    Raises:
        DataError: another generator, number of speakers or seed made what is there.
    """
    if not (folder / "factors.json").is_file():
        return generate(folder, speakers=speakers, seed=seed, workers=workers, on_log=on_log)
    made = json.loads((folder / "factors.json").read_text(encoding="utf-8"))
    wanted = {"schema": SCHEMA, "seed": seed, "speakers": speakers}
    if (found := {key: made.get(key) for key in wanted}) != wanted:
        raise DataError(
            f"{folder} holds originals of {found}; expected {wanted}; remove the folder or choose "
            "another data_root"
        )
    on_log(f"mini: originals in {folder} are ready")
    return folder


if __name__ == "__main__":
    made = make_speaker(Path(sys.argv[1]), **json.loads(sys.argv[2]))
    sys.stdout.write(json.dumps(made))
