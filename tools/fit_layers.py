"""Fit layers to a model that is trained already.

    python -m tools.fit_layers spectra runs/<run> data/mini OUT
    python -m tools.fit_layers heads runs/<run> data/mini OUT
    python -m tools.fit_layers codes runs/<run> data/mini OUT

`spectra`, by ridge regression: the layer that reads average spectra from styles (A95), from the
styles of the training voices, and of the faces with a small weight, to the average spectra of the
voices (of the people's voices). The model has to have such a layer. `heads`, likewise: those of
E_A, from the styles of the training voices to the mean style of the same people's faces, each sex
apart; so a voice stands for what it tells of the face and no more. `codes`: the four layers of M
for each sex, until its styles are spread as those of the training faces are (energy distance,
Adam). OUT becomes the checkpoint with the new layers, in half precision; `tools.ship_model` takes
it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor

from xfavot.data.store import Store
from xfavot.evaluation.classifiers import AT_ONCE, crop, people_of, speakers_of
from xfavot.evaluation.learning import styles_of
from xfavot.models.f0 import F0Output, ltas_of
from xfavot.models.mapping import HEAD_LAYERS, MappingNetwork
from xfavot.training.checkpoint import LoadedModel, export, load_model, pretrained

FACES = 0.1  # weight of all faces over that of all crops of voices
SEXES = 2
RIDGE = {"spectra": 0.001, "heads": 0.1}  # of the mean square of the styles
PLACES = (0.0, 0.5, 1.0)  # where crops of a clip start; 1: as late as possible
LAYERS = {
    "spectra": ["G_A.ltas"],
    "heads": ["E_A.heads"],
    "codes": [f"M.heads.{n}" for n in range(HEAD_LAYERS + 1)],
}
STEPS, DRAWN, RATE = 3_000, 256, 1.0e-3  # of the fit of codes; styles a step and sex


class Encoded(NamedTuple):
    """Styles, sexes and persons of voices and faces, and the voices' average spectra."""

    heard: Tensor
    heard_gender: Tensor
    heard_speaker: Tensor
    seen: Tensor
    seen_gender: Tensor
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
def encode(model: LoadedModel, store: Store) -> Encoded:
    """Read the training split of a store by a model's networks, in double precision."""
    size = model.config.model
    people = people_of([store], "train", speakers_of([store], ("train",)), size.image_size)
    faces = people.faces
    parts = [crop(clip, size.mel_frames, at) for clip in people.clips for at in PLACES]
    voices = people.heard(torch.stack(parts), people.clip_speaker.repeat_interleave(len(PLACES)))
    x = model.standardiser.standardise(voices.x).unsqueeze(1)
    heard, seen = (styles_of(model, kind, of) for kind, of in (("voice", voices), ("face", faces)))
    spectra = [
        ltas_of(crops, cast(F0Output, model.f0(crops)).voicing.sigmoid())
        for crops in torch.split(x, AT_ONCE)
    ]
    styles, shown, averages = (one.double() for one in (heard, seen, torch.cat(spectra)))
    told = faces.gender, faces.speaker
    return Encoded(styles, voices.gender, voices.speaker, shown, *told, averages)


def fit_spectra(own: Encoded) -> tuple[Tensor, ...]:
    """Weights and bias of the layer of average spectra."""
    of_person = own.of_people(own.spectra, own.heard_speaker)
    voices, faces = len(own.heard), len(own.seen)
    weight = torch.ones(voices), torch.full((faces,), FACES * voices / faces)
    styles, wanted = (own.heard, own.seen), (own.spectra, of_person[own.seen_speaker])
    every = (torch.cat(pair) for pair in (styles, wanted, weight))
    return ridge(*every, damping=RIDGE["spectra"])


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


def energy_distance(made: Tensor, real: Tensor) -> Tensor:
    """Squared energy distance (Szekely and Rizzo 2013) of two samples (G, n, S), summed over G."""
    count = made.shape[1]
    own = [torch.cdist(x, x).sum((1, 2)) / (count * (count - 1)) for x in (made, real)]
    return (2 * torch.cdist(made, real).mean((1, 2)) - own[0] - own[1]).sum()


def fit_codes(own: Encoded, net: MappingNetwork, steps: int = STEPS) -> list[Tensor]:
    """Weights and biases of M's last layers, whose first heads are those of the sexes."""
    faces = [own.seen[own.seen_gender == sex].float() for sex in range(SEXES)]
    net = net.requires_grad_(False)
    every = list(net.heads.parameters())  # a weight and a bias a layer
    layers = [part[:SEXES].clone().requires_grad_() for part in every]
    optimiser = torch.optim.Adam(layers, RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        h = torch.randn(SEXES, DRAWN, net.latent_dim, generator=draw)
        for layer in net.shared:
            h = layer(h).relu()
        for n in range(0, len(layers), 2):
            h = torch.baddbmm(layers[n + 1].unsqueeze(1), h.relu() if n else h, layers[n])
        rows = [torch.randint(len(x), (DRAWN,), generator=draw) for x in faces]
        real = torch.stack([x[row] for x, row in zip(faces, rows, strict=True)])
        optimiser.zero_grad()
        energy_distance(h, real).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return [torch.cat([new.detach(), old[SEXES:]]) for new, old in zip(layers, every, strict=True)]


def main() -> None:
    """Write the checkpoint with the fitted layers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=LAYERS)
    parser.add_argument("checkpoint", type=pretrained)
    parser.add_argument("store", type=Path, help="prepared, with faces and voices")
    parser.add_argument("out", type=Path, help="not there yet")
    given = parser.parse_args()
    model = load_model(given.checkpoint)
    own = encode(model, Store.open(given.store, corpus=given.store.name))
    names = [f"{layer}.{part}" for layer in LAYERS[given.what] for part in ("weight", "bias")]
    fitted: Sequence[Tensor]
    if given.what == "spectra":
        fitted = fit_spectra(own)
    elif given.what == "heads":
        fitted = fit_heads(own, *(model.nets.get_parameter(name).detach() for name in names))
    else:
        fitted = fit_codes(own, model.nets.M)
    export(given.checkpoint, given.out, instead=dict(zip(names, fitted, strict=True)))


if __name__ == "__main__":
    main()
