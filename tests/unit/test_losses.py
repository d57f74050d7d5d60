"""Terms against hand-computed values, the objectives' signs and weights, Table 1."""

from __future__ import annotations

import math

import pytest
import torch

from tests.conftest import refuses
from xfavot.config import LossConfig, RunConfig, TrainConfig
from xfavot.errors import ShapeError
from xfavot.losses import objective, terms


def test_adversarial_terms_are_binary_cross_entropies() -> None:
    logits = torch.tensor([0.0, 2.0])
    real = (math.log(2) + math.log(1 + math.exp(-2))) / 2
    fake = (math.log(2) + math.log(1 + math.exp(2))) / 2
    for name, value in (("real", real), ("fake", fake), ("generator", real)):
        term = getattr(terms, f"adversarial_{name}")
        assert term(logits).item() == pytest.approx(value, rel=1e-6)


def test_r1_of_a_linear_discriminator_is_half_its_squared_norm() -> None:
    weight = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    x = torch.randn(5, 3, requires_grad=True)
    penalty = terms.r1(x @ weight, x)
    assert penalty.item() == pytest.approx(7.0, rel=1e-6)
    penalty.backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, weight.detach())


L1 = "style_reconstruction style_diversification cycle_consistency speech_consistency"


@pytest.mark.parametrize("name", [*L1.split(), "norm_consistency", "self_reconstruction"])
def test_l1_terms(name: str) -> None:
    term = getattr(terms, name)
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    assert term(a, b).item() == pytest.approx(1.5)
    assert term(a, a).item() == 0
    refuses(ShapeError, "got a tensor of shape", term, a, b[:1])


def test_f0_consistency_ignores_the_register_and_survives_silence() -> None:
    source = torch.tensor([[100.0, 200.0, 300.0]])
    assert terms.f0_consistency(source, 2 * source).item() == pytest.approx(0, abs=1e-7)
    flat = torch.full((1, 3), 150.0)
    assert terms.f0_consistency(source, flat).item() == pytest.approx(1 / 3, rel=1e-6)
    silent = torch.zeros(1, 3, requires_grad=True)
    value = terms.f0_consistency(source, silent)
    (slope,) = torch.autograd.grad(value, silent)
    assert torch.isfinite(torch.cat([value.view(1), slope[0]])).all()


def test_frame_energy_is_the_log_norm_over_the_bands() -> None:
    amplitude = torch.tensor([[3.0, 4.0], [1e-10, 1e-10]]).T  # two bands, two frames
    energy = terms.frame_energy(amplitude.log10()[None, None])
    assert energy[0, 0].item() == pytest.approx(math.log10(5.0), abs=1e-6)
    assert energy[0, 1].item() == pytest.approx(-10 + math.log10(math.sqrt(2)), abs=1e-5)


def test_classification_guards_the_empty_mask() -> None:
    logits = torch.tensor([[0.0, 0.0], [5.0, 0.0]], requires_grad=True)
    target = torch.tensor([1, -1])
    only_first = terms.classification(logits, target, torch.tensor([True, False]))
    assert only_first.item() == pytest.approx(math.log(2), rel=1e-6)
    none = terms.classification(logits, target, torch.tensor([False, False]))
    (slope,) = torch.autograd.grad(none, logits)
    assert (none.item(), slope.abs().sum().item()) == (0, 0)
    with pytest.raises(ShapeError, match="do not fit"):
        terms.classification(logits, target[:1], torch.tensor([True]))


def xm(face: torch.Tensor, voice: torch.Tensor, speaker: torch.Tensor, form: str) -> torch.Tensor:
    return terms.cross_modality_style_consistency(face, voice, speaker, tau=0.5, form=form)


def test_xm_of_two_orthogonal_pairs() -> None:
    face, voice = torch.tensor([[[1.0, 0.0], [0.0, 3.0]], [[2.0, 0.0], [0.0, 1.0]]])
    one_way = math.log(math.exp(2) + 1) - 2
    mmv = math.log(math.exp(2) + 2) - 2
    for form, value in (("one_way", one_way), ("mmv", mmv), ("symmetric", one_way)):
        assert xm(face, voice, torch.tensor([4, 7]), form).item() == pytest.approx(value, rel=1e-5)


def test_xm_of_one_speaker_or_of_fewer_than_two_pairs_is_zero() -> None:
    face = torch.randn(3, 4, requires_grad=True)
    assert xm(face, face, torch.tensor([1, 1, 1]), "mmv").item() == pytest.approx(0, abs=1e-6)
    for n in (0, 1):
        value = xm(face[:n], torch.randn(n, 4), torch.arange(n), "symmetric")
        value.backward()  # it has a gradient all the same
        assert value.item() == 0


def test_objectives_carry_the_signs_and_weights() -> None:
    image, audio = {"ds_image": 3, "cyc_image": 7}, {"ds_audio": 5, "cyc_audio": 11, "sc": 13}
    loss = LossConfig(**image, **audio, sty=2, f0=17, norm=19, rec=2, xm=0.5)
    cfg = RunConfig(loss=loss, train=TrainConfig(r1_every=4, warmup_steps=3, steps=100))
    totals = {
        name: objective.total({k: torch.ones(()) for k in weight}, weight).item()
        for name, weight in objective.weights(cfg, 50).items()
    }
    assert totals["G_I"] == pytest.approx(1 + 2 - 3 + 7)
    assert totals["G_A"] == pytest.approx(1 + 2 - 5 + 11 + 13 + 17 + 19 + loss.advcls)
    assert totals["D_I"] == pytest.approx(2 + 4 * loss.r1_image)
    assert totals["D_A"] == pytest.approx(2 + loss.cls + 4 * loss.r1_audio)
    assert totals["pairs"] == pytest.approx(0.5 + 2 + 2)
    warmup = objective.weights(cfg, 3)["pairs"]
    assert objective.total({"rec_image": torch.tensor(3.0)}, warmup).item() == 3.0


def test_diversity_weight_decays_linearly_to_zero_or_not_at_all() -> None:
    assert objective.ds_weight(2.0, 500, 0) == 2.0
    assert objective.ds_weight(2.0, 25, 100) == pytest.approx(1.5)
    assert objective.ds_weight(2.0, 200, 100) == 0.0


def test_table_1_keeps_speaker_heads_from_image_only_faces() -> None:
    assert objective.may_use_speaker_head("E_I", "audio-visual face")
    assert objective.may_use_speaker_head("E_A", "audio-only voice")
    assert not objective.may_use_speaker_head("E_I", "image-only face")
    assert [row.xm for row in objective.TABLE_1] == [True, True, False, False, False, False]
    with pytest.raises(KeyError):
        objective.may_use_speaker_head("E_I", "audio-only voice")
