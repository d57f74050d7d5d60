"""Fit linear layers to a model that is trained already, by ridge regression.

    python -m tools.fit_layers spectra runs/<run> data/mini OUT
    python -m tools.fit_layers heads runs/<run> data/mini OUT

`spectra`: the layer that reads average spectra from styles (A95), from the styles of the training
voices, and of the faces with a small weight, to the average spectra of the voices (of the people's
voices). The model has to have such a layer. `heads`: those of E_A, from the styles of the training
voices to the mean style of the same people's faces, each sex apart; so a voice stands for what it
tells of the face and no more. OUT becomes the checkpoint with the new layer, in half precision;
`tools.ship_model` takes it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import NamedTuple, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from xfavot.data.store import Store
from xfavot.evaluation.classifiers import AT_ONCE, crop, people_of, speakers_of
from xfavot.models.f0 import F0Output, ltas_of
from xfavot.training.checkpoint import export, load_model

FACES = 0.1  # weight of all faces over that of all crops of voices
RIDGE = {"spectra": 0.001, "heads": 0.1}  # of the mean square of the styles
PLACES = (0.0, 0.5, 1.0)  # where crops of a clip start; 1: as late as possible
LAYERS = {"spectra": "G_A.ltas", "heads": "E_A.heads"}


class Encoded(NamedTuple):
    """Styles, sexes and persons of voices and faces, and the voices' average spectra."""

    heard: Tensor
    heard_gender: Tensor
    heard_speaker: Tensor
    seen: Tensor
    seen_speaker: Tensor
    spectra: Tensor

    def of_people(self, values: Tensor, speaker: Tensor) -> Tensor:
        """Mean of the values of everybody."""
        count = int(max(self.heard_speaker.max(), self.seen_speaker.max())) + 1
        return torch.stack([values[speaker == n].mean(0) for n in range(count)])


def ridge(styles: Tensor, wanted: Tensor, weight: Tensor, *, damping: float) -> tuple[Tensor, ...]:
    """Weights (M, S) and bias (M,) of a layer, from (n, S), (n, M) and weights (n,)."""
    weight = (weight / weight.sum())[:, None]
    middle, target = (weight * styles).sum(0), (weight * wanted).sum(0)
    apart = styles - middle
    square = (weight * apart).T @ apart
    damped = square + damping * square.diagonal().mean() * torch.eye(len(square))
    found = torch.linalg.solve(damped, (weight * apart).T @ (wanted - target))
    return found.T, target - found.T @ middle


@torch.inference_mode()
def encode(path: Path, store: Store) -> Encoded:
    """Read the training split of a store by a checkpoint's networks, in double precision."""
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
    styles, shown, averages = (torch.cat(one).double() for one in (heard, seen, spectra))
    return Encoded(styles, voices.gender, voices.speaker, shown, faces.speaker, averages)


def fit_spectra(own: Encoded) -> tuple[Tensor, ...]:
    """Weights and bias of the layer of average spectra."""
    of_person = own.of_people(own.spectra, own.heard_speaker)
    voices, faces = len(own.heard), len(own.seen)
    weight = torch.ones(voices), torch.full((faces,), FACES * voices / faces)
    styles, wanted = (own.heard, own.seen), (own.spectra, of_person[own.seen_speaker])
    every = (torch.cat(pair) for pair in (styles, wanted, weight))
    return ridge(*every, damping=RIDGE["spectra"])  # type: ignore[misc]


def fit_heads(own: Encoded, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and bias of E_A's heads, given those that made the styles."""
    of_person = own.of_people(own.seen, own.seen_speaker)
    size = own.heard.shape[1]
    made = [part.double() for part in (weight.view(-1, size, weight.shape[1]), bias.view(-1, size))]
    for gender, (rows, shift) in enumerate(zip(*made, strict=True)):
        here = own.heard_gender == gender
        pairs = own.heard[here], of_person[own.heard_speaker[here]]
        turn, move = ridge(*pairs, torch.ones(int(here.sum())), damping=RIDGE["heads"])
        made[0][gender], made[1][gender] = turn @ rows, turn @ shift + move
    return made[0].flatten(0, 1), made[1].flatten()


def main() -> None:
    """Write the checkpoint with the fitted layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layer", choices=LAYERS)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("store", type=Path, help="prepared, with faces and voices")
    parser.add_argument("out", type=Path, help="not there yet")
    given = parser.parse_args()
    own = encode(given.checkpoint, Store.open(given.store, corpus=given.store.name))
    export(given.checkpoint, given.out)
    file, layer = given.out / "model.safetensors", LAYERS[given.layer]
    tensors = load_file(file)
    names = [f"{layer}.{part}" for part in ("weight", "bias")]
    before = [tensors[name] for name in names]
    fitted = fit_spectra(own) if given.layer == "spectra" else fit_heads(own, *before)
    for name, old, value in zip(names, before, fitted, strict=True):
        tensors[name] = value.to(old.dtype).contiguous()
    save_file(tensors, file)
    shutil.copymode(given.out / "f0.safetensors", file)
    state = json.loads((given.out / "state.json").read_text("utf-8"))
    state["bytes"][file.name] = file.stat().st_size
    (given.out / "state.json").write_text(json.dumps(state), "utf-8")


if __name__ == "__main__":
    main()
