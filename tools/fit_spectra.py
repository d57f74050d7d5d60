"""Fit the layer that reads average spectra from styles (A95) to a model that is trained already.

    python -m tools.fit_spectra runs/<run> data/mini OUT

A ridge regression from the styles of the training voices, and of the faces with a small weight, to
the average spectra of the voices (of the people's voices). OUT becomes the checkpoint with the new
layer, in half precision; `tools.ship_model` takes it. The model has to have such a layer.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from xfavot.data.store import Store
from xfavot.evaluation.classifiers import AT_ONCE, crop, people_of, speakers_of
from xfavot.models.f0 import F0Output, ltas_of
from xfavot.training.checkpoint import export, load_model

FACES = 0.1  # weight of all faces over that of all crops of voices
RIDGE = 0.01  # of the mean square of the styles
PLACES = (0.0, 0.5, 1.0)  # where crops of a clip start; 1: as late as possible
LAYER = "G_A.ltas"


def ridge(styles: Tensor, spectra: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (M, S) and bias (M,) of the layer, from (n, S), (n, M) and weights (n,)."""
    weight = (weight / weight.sum())[:, None]
    middle, target = (weight * styles).sum(0), (weight * spectra).sum(0)
    apart = styles - middle
    square = (weight * apart).T @ apart
    damped = square + RIDGE * square.diagonal().mean() * torch.eye(len(square))
    found = torch.linalg.solve(damped, (weight * apart).T @ (spectra - target))
    return found.T, target - found.T @ middle


@torch.inference_mode()
def fit(path: Path, store: Store) -> tuple[Tensor, Tensor]:
    """Weights and bias of the layer for a checkpoint and the training split of a store."""
    model = load_model(path)
    nets, size = model.nets, model.config.model
    people = people_of([store], "train", speakers_of([store], ("train",)), size.image_size)
    faces = people.faces
    parts = [crop(clip, size.mel_frames, at) for clip in people.clips for at in PLACES]
    voices = people.heard(torch.stack(parts), people.clip_speaker.repeat_interleave(len(PLACES)))
    x = model.standardiser.standardise(voices.x).unsqueeze(1)
    heard, seen, spectra = list[Tensor](), list[Tensor](), list[Tensor]()
    for crops, gender in zip(
        torch.split(x, AT_ONCE), torch.split(voices.gender, AT_ONCE), strict=True
    ):
        heard.append(nets.E_A(crops, gender))
        voicing = cast(F0Output, model.f0(crops)).voicing
        spectra.append(ltas_of(crops, voicing.sigmoid()))
    for pictures, gender in zip(
        torch.split(faces.x, AT_ONCE), torch.split(faces.gender, AT_ONCE), strict=True
    ):
        seen.append(nets.E_I(pictures, gender))
    own = torch.cat(spectra)
    of_person = torch.stack([own[voices.speaker == n].mean(0) for n in range(len(people.speakers))])
    weight = torch.ones(len(x)), torch.full((len(faces.x),), FACES * len(x) / len(faces.x))
    every = torch.cat([*heard, *seen]), torch.cat([own, of_person[faces.speaker]])
    return ridge(every[0].double(), every[1].double(), torch.cat(weight).double())


def main() -> None:
    """Write the checkpoint with the fitted layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("store", type=Path, help="prepared, with faces and voices")
    parser.add_argument("out", type=Path, help="not there yet")
    given = parser.parse_args()
    weight, bias = fit(given.checkpoint, Store.open(given.store, corpus=given.store.name))
    export(given.checkpoint, given.out)
    file = given.out / "model.safetensors"
    tensors = load_file(file)
    for name, value in (("weight", weight), ("bias", bias)):
        kind = tensors[f"{LAYER}.{name}"].dtype
        tensors[f"{LAYER}.{name}"] = value.to(kind).contiguous()
    save_file(tensors, file)
    shutil.copymode(given.out / "f0.safetensors", file)
    state = json.loads((given.out / "state.json").read_text("utf-8"))
    state["bytes"][file.name] = file.stat().st_size
    (given.out / "state.json").write_text(json.dumps(state), "utf-8")


if __name__ == "__main__":
    main()
