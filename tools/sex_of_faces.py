"""Which sex do faces have that a model converts? A judge says that was trained on other people.

    python -m tools.sex_of_faces CHECKPOINT data/mini OTHER/mini

The judge is the evaluation's classifier of faces (`xfavot.evaluation.classifiers`), trained on the
training split of the second store: with more people than the first has it knows more looks, and it
has learnt nothing about the people whose faces are converted. Sources and references are drawn
from the validation split of the first store; chance is 0.5.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from xfavot.data.store import Store
from xfavot.evaluation.classifiers import (
    STEPS,
    FaceClassifier,
    People,
    face_batch,
    fit,
    people_of,
    read,
    speakers_of,
)
from xfavot.evaluation.learning import REFERENCES, SOURCES, converted, draw, styles_of
from xfavot.training.checkpoint import load_model, pretrained


def trained_judge(people: People, *, size: int, seed: int) -> FaceClassifier:
    """Train the evaluation's classifier of faces."""
    torch.manual_seed(seed)
    judge = FaceClassifier(image_size=size, speakers=len(people.speakers))
    fit(judge, partial(face_batch, people), steps=STEPS["face"])
    return judge.eval()


def main() -> None:
    """Print how often the judge is right, of real faces and of converted ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=pretrained)
    parser.add_argument("store", type=Path, help="prepared; its people are converted")
    parser.add_argument("other", type=Path, help="prepared; its people teach the judge")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model, rng = load_model(given.checkpoint), torch.Generator().manual_seed(given.seed)
    size = model.config.model
    store, other = (Store.open(path, corpus=path.name) for path in (given.store, given.other))
    many = people_of([other], "train", speakers_of([other], ("train",)), size.image_size)
    judge = trained_judge(many, size=size.image_size, seed=given.seed)
    people = people_of([store], "val", speakers_of([store], ("train", "val")), size.image_size)
    faces, voices = people.faces, people.voices(size.mel_frames)
    with torch.inference_mode():
        right = read(judge, faces.x).gender.argmax(1) == faces.gender
        lines = [f"real: {right.float().mean():.3f} of {len(right)}; {len(many.speakers)} people"]
        source, reference = (
            faces.take(draw(faces.speaker, people.gender, count, rng))
            for count in (SOURCES, REFERENCES)
        )
        said = voices.take(draw(voices.speaker, people.gender, REFERENCES, rng))
        z = torch.randn((REFERENCES, size.latent_dim), generator=rng)
        guides = {
            "i2i": (styles_of(model, "face", reference), reference.gender),
            "a2i": (styles_of(model, "voice", said), said.gender),
            "z2i": (model.nets.M(z, reference.gender), reference.gender),
        }
        for task, (styles, gender) in guides.items():
            made = [converted(model, "face", x, styles) for x in source.x]
            seen = [read(judge, x).gender.argmax(1) == gender for x in made]
            right = torch.stack(seen).float()
            each = [f"{right[:, gender == code].mean():.3f}" for code in (0, 1)]
            share = f"{right.mean():.3f} of {right.numel()}"
            lines.append(f"{task}: {share}; women {each[0]}, men {each[1]}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
