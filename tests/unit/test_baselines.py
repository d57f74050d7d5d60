"""Compared systems: published sizes and checkpoints, their loss, training, conversion, scores."""

from __future__ import annotations

import importlib.util
import json
import math
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from tests.conftest import ROOT, Patch, refuses
from tests.unit.store_factory import face, make_store, tone
from tests.unit.training_factory import small_run
from tools import cards
from xfavot import training as training_of_method
from xfavot.audio import vocoder
from xfavot.audio.mel import Standardiser
from xfavot.baselines import adain_vc, fragment_vc, sgsim, training, vclip
from xfavot.baselines.adain_vc import PublishedMel, divergence
from xfavot.baselines.training import Plan, fit, load_model, plan_of
from xfavot.convert import Converter, sample_grids
from xfavot.data.store import Store
from xfavot.errors import CheckpointError, ConfigError, DataError, WeightsError
from xfavot.evaluation import protocol
from xfavot.parameters import BASELINES, Baseline, Evaluate
from xfavot.report import tables
from xfavot.training import loop
from xfavot.training.loop import Run

SYSTEMS = tuple(training.SYSTEMS)
VOICE = tone(120.0, 1.3, np.random.default_rng(0))


class Light(torch.nn.Module):
    """In the place of dlib's network for SGSIM: the colours of sixteen regions."""

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        seen = torch.nn.functional.adaptive_avg_pool2d(faces, 4).flatten(1)
        return torch.nn.functional.normalize(torch.nn.functional.pad(seen, (0, 80)), dim=1)

    def maps(self, faces: torch.Tensor) -> list[torch.Tensor]:
        return [faces]


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sgsim, "seeing", lambda name: Light())
        patch.setattr(loop, "VALIDATION_BATCHES", 1)
        yield


def planned(root: Path, system: str = "adain_vc", **given: Any) -> Plan:
    usual: dict[str, Any] = {"dataset": "grid", "preset": "smoke", "device": "cpu"}
    usual |= {"data_root": str(root / "data"), "run_root": str(root / "runs")}
    if system == "vclip":  # the model that speaks
        usual["conversion"] = str(next(iter(root.glob("runs/grid_xfavot_*")), root))
    return plan_of(Baseline.resolve(system=system, **usual | given))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("baselines")
    splits = ("train", "train", "val")
    make_store(root / "data", corpus="grid", genders="ffmm", seconds=1.3, splits=splits)
    return root


@pytest.fixture(scope="module")
def store(root: Path) -> Store:
    return Store.open(root / "data" / "grid")


@pytest.fixture(scope="module")
def runs(root: Path) -> dict[str, Run]:
    training_of_method.fit(small_run(root, steps=1))
    return {system: fit(planned(root, system)) for system in SYSTEMS}


def size(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def test_sizes_are_the_published_ones(tmp_path: Path) -> None:
    given = {"dataset": "grid", "preset": "paper"}
    wide = planned(tmp_path, **given).system().net
    parts = {"speaker_encoder": 3_756_288, "content_encoder": 3_574_656, "decoder": 1_709_568}
    assert {name: size(part) for name, part in wide.named_children()} == parts
    assert sum(parts.values()) == 9_040_512
    narrow = planned(tmp_path, **given, overrides={"system.bands": 80}).system().net
    assert size(narrow) == 4_892_880
    assert plan_of(Baseline.resolve(system="adain_vc")).run.preset == "mini"
    sizes = planned(tmp_path, "fragment_vc", **given).settings
    with torch.device("meta"):
        net = fragment_vc.FragmentNet(768, sizes.width, sizes.hidden, sizes.dropout)
    parts = {name: size(part) for name, part in net.named_children()}
    assert sum(parts.values()) == 48_008_256
    assert parts["mel_linear"] == 512 * 80 + 80


def theirs() -> dict[str, torch.Tensor]:
    """A state dictionary laid out as the published one, by its published sizes."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("speaker_encoder", "content_encoder"):
        shapes |= {f"{name}.conv_bank.{k}.weight": (128, 512, k + 1) for k in range(8)}
        shapes[f"{name}.in_conv_layer.weight"] = (128, 1536, 1)
        for n in range(6):
            shapes[f"{name}.first_conv_layers.{n}.weight"] = (128, 128, 5)
            shapes[f"{name}.second_conv_layers.{n}.weight"] = (128, 128, 5)
    for n in range(6):
        shapes[f"speaker_encoder.first_dense_layers.{n}.weight"] = (128, 128)
        shapes[f"speaker_encoder.second_dense_layers.{n}.weight"] = (128, 128)
        shapes[f"decoder.first_conv_layers.{n}.weight"] = (128, 128, 5)
        shapes[f"decoder.second_conv_layers.{n}.weight"] = (128 * (2, 1)[n % 2], 128, 5)
    shapes |= {f"decoder.conv_affine_layers.{n}.weight": (256, 128) for n in range(12)}
    shapes["speaker_encoder.output_layer.weight"] = (128, 128)
    shapes |= {f"content_encoder.{n}_layer.weight": (128, 128, 1) for n in ("mean", "std")}
    shapes["decoder.in_conv_layer.weight"] = (128, 128, 1)
    shapes["decoder.out_conv_layer.weight"] = (512, 128, 1)
    biases = {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items()}
    rng = torch.Generator().manual_seed(0)
    return {n: 0.02 * torch.randn(shape, generator=rng) for n, shape in (shapes | biases).items()}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    torch.save(theirs(), folder / "vctk_model.ckpt")
    np.savez(folder / "attr.npz", mean=np.full(512, 0.4), std=np.full(512, 0.2))
    return folder / "vctk_model.ckpt"


def test_a_published_checkpoint_becomes_a_run_that_converts(
    published: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(adain_vc, "ITERATIONS", 2)
    plan = planned(tmp_path, preset="paper")
    run = training.import_published(plan, published)
    assert json.loads((run.path / "config.json").read_text("utf-8"))["system"]["bands"] == 512
    model = load_model(run.path)
    for name, value in theirs().items():
        assert torch.equal(model.nets.get_parameter(f"net.{name}"), value)
    converter = training.converter_of(model)
    made = converter.convert_voice(
        VOICE, voice_reference=tone(200.0, 1.0, np.random.default_rng(1))
    )
    assert made.waveform.shape == VOICE.shape
    assert np.abs(made.waveform).max() > 0
    assert (made.provenance["vocoder"], made.provenance["task"][:3]) == ("griffin_lim", "a2a")
    assert "converted by AdaIN-VC" in made.provenance["synthetic"]
    small = planned(tmp_path, overrides={"system.width": 16})
    refuses(ConfigError, "preset paper", training.import_published, small, published)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda state: state.pop("decoder.out_conv_layer.bias"), r"out_conv_layer.bias is missing"),
        (lambda state: state.update(decoder=torch.zeros(1)), r"decoder is \(1,\), expected none"),
        (
            lambda state: state.update({"content_encoder.mean_layer.bias": torch.zeros(9)}),
            "is .9,., exp",
        ),
    ],
)
def test_a_wrong_key_is_named(published: Path, tmp_path: Path, change: Any, match: str) -> None:
    state = theirs()
    change(state)
    torch.save(state, tmp_path / "model.ckpt")
    (tmp_path / "attr.npz").write_bytes(published.with_name("attr.npz").read_bytes())
    refuses(WeightsError, match, adain_vc.published, planned(tmp_path).run, tmp_path / "model.ckpt")


def test_statistics_and_weights_are_never_executed(published: Path, tmp_path: Path) -> None:
    call = partial(adain_vc.published, planned(tmp_path).run, tmp_path / "model.ckpt")
    refuses(WeightsError, r"attr\.npz.*numpy\.savez", call)
    np.savez(tmp_path / "attr.npz", mean=np.zeros(512, object), std=np.ones(512))
    refuses(WeightsError, r"allow_pickle.*numpy\.savez", call)
    np.savez(tmp_path / "attr.npz", mean=np.zeros(512), std=np.zeros(512))
    refuses(WeightsError, "not positive", call)
    np.savez(tmp_path / "attr.npz", mean=np.zeros(512), std=np.ones(512))
    torch.save({"key": partial(print)}, tmp_path / "model.ckpt")
    refuses(WeightsError, "model.ckpt: names .*numpy.savez", call)


@pytest.mark.parametrize("system", ["fragment_vc", "vclip", "sgsim"])
def test_what_is_drawn_is_that_of_the_step(
    root: Path, runs: dict[str, Run], system: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    """Dropout, references and the optimiser's stages are those of a run that was not stopped."""
    (method,) = root.glob("runs/grid_xfavot_*")
    given: dict[str, Any] = {"data_root": str(root / "data")}
    given |= {"conversion": str(method)} if system == "vclip" else {}
    plan, log = planned(tmp_path, system, **given), training.Session.log

    def stop(session: Any, values: dict[str, float]) -> None:
        log(session, values)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(training.Session, "log", stop)
        assert fit(plan).step == 1
    torch.rand(7)  # whatever else the process draws
    resumed = load_model(fit(plan, resume="auto").path).nets.state_dict()
    whole = load_model(runs[system].path).nets.state_dict()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def of_fragments() -> dict[str, torch.Tensor]:
    """A state dictionary laid out as that of the published Fragment-VC, by its published sizes."""
    shapes: dict[str, tuple[int, ...]] = {"unet.prenet.0": (768, 768), "unet.prenet.2": (512, 768)}
    norms: list[str] = []
    for n in range(3):
        shapes[f"unet.conv{n + 1}"] = (512, 512 if n else 80, 3)
        for layer, parts in ((f"unet.extractor{n + 1}", 3), (f"smoothers.layers.{n}", 2)):
            shapes |= {f"{layer}.conv1": (1024, 512, 9), f"{layer}.conv2": (512, 1024, 1)}
            norms += [f"{layer}.norm{part + 1}" for part in range(parts)]
            for attention in ("self_attn", "cross_attn")[: parts - 1]:
                shapes[f"{layer}.{attention}.out_proj"] = (512, 512)
                shapes[f"{layer}.{attention}.in_proj"] = (1536, 512)
    shapes |= {"mel_linear": (80, 512), "post_net.0": (512, 80, 5), "post_net.16": (80, 512, 5)}
    shapes |= {f"post_net.{n}": (512, 512, 5) for n in (4, 8, 12)}
    rng = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        joint = "_" if name.endswith("in_proj") else "."
        state[f"{name}{joint}weight"] = 0.02 * torch.randn(shape, generator=rng)
        state[f"{name}{joint}bias"] = torch.zeros(shape[0])
    counted = {f"post_net.{n}": 80 if n == 17 else 512 for n in (1, 5, 9, 13, 17)}
    for name, width in {**dict.fromkeys(norms, 512), **counted}.items():
        state |= {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}
    for name, width in counted.items():
        state |= {
            f"{name}.running_mean": torch.zeros(width),
            f"{name}.running_var": torch.ones(width),
        }
        state[f"{name}.num_batches_tracked"] = torch.tensor(9)
    return state


def test_published_fragments_convert(tmp_path: Path, monkeypatch: Patch) -> None:
    plan, file = planned(tmp_path, "fragment_vc", preset="paper"), tmp_path / "state.pt"
    state = of_fragments()
    torch.save({**state, "unet.conv4.bias": torch.zeros(1)}, file)
    refuses(WeightsError, "conv4.bias is .*expected none", fragment_vc.published, plan.run, file)
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), file)
    refuses(WeightsError, "theirs is a program", fragment_vc.published, plan.run, file)
    torch.save(state, file)
    model = load_model(training.import_published(plan, file).path)
    assert torch.equal(model.nets.net.mel_linear.weight, state["mel_linear.weight"])
    converter = training.converter_of(model)
    monkeypatch.setenv("XFAVOT_WEIGHTS", str(tmp_path))
    fragment_vc.listening.cache_clear()
    ask = partial(converter.convert_voice, VOICE, voice_reference=VOICE)
    if importlib.util.find_spec("transformers") is None:
        refuses(DataError, r"Wav2Vec2Model needs transformers.*encoders", ask)
    else:
        refuses(WeightsError, "wav2vec2_base cannot be used", ask)

    def listens(wave: torch.Tensor) -> Any:
        return SimpleNamespace(last_hidden_state=wave.unfold(1, 400, 320).mean(2)[..., None] + ONES)

    listener = Mock(side_effect=listens)
    listener.to = lambda device: listener
    monkeypatch.setattr(fragment_vc, "listening", lambda: listener)
    monkeypatch.setattr(adain_vc, "ITERATIONS", 2)
    made = ask()
    assert made.waveform.shape == VOICE.shape
    assert 0 < np.abs(made.waveform).max() <= 1
    assert made.provenance["vocoder"] == "griffin_lim"


ONES = torch.ones(768)


def test_features_of_fragments_turn_back_into_sound() -> None:
    heard = fragment_vc.PublishedFeatures()
    mel = heard(VOICE, heard=False)
    assert mel.shape == (80, round(len(VOICE) * 16 / 24) // 326 + 1)
    error = (heard(heard.sound(mel, len(VOICE)), heard=False) - mel).abs().mean()
    assert error < 0.6  # of natural logarithms, 5 dB
    tone_hz = np.sin(2 * np.pi * 1000 * np.arange(24_000) / 24_000).astype(np.float32)
    wave = fragment_vc.resampled(torch.from_numpy(tone_hz), 24_000, 16_000)
    wanted = torch.sin(2 * torch.pi * 1000 * torch.arange(16_000) / 16_000)
    torch.testing.assert_close(wave, wanted, atol=1e-3, rtol=0)


def test_rates_of_fragments_by_hand(tmp_path: Path) -> None:
    sizes = {"system.alone_steps": 10, "system.warmup_steps": 2, "system.extraction_rate": 0.1}
    plan = planned(tmp_path, "fragment_vc", steps=30, overrides={**sizes, "train.lr": 1.0})
    system = plan.system()
    optimizer = system.optimizer(plan.run.train)
    rates = {}
    for number in range(1, 31):
        system.schedule(optimizer, number)
        rates[number] = [group["lr"] for group in optimizer.param_groups]
    assert rates[1] == [0.5, 0.5]
    assert rates[2] == rates[3] == [1.0, 1.0]
    assert rates[11] == pytest.approx([0.05, 0.5])  # warmed up anew, the extraction slower
    assert rates[12] == pytest.approx([0.1, 1.0])
    assert rates[22] == pytest.approx([0.05, 0.5])  # half of the way down
    assert rates[30][1] < 0.01


def test_association_by_hand() -> None:
    """Two clips of one person and one of another: everything of the first person is right."""
    s = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    same, other = math.log(math.e**2 + math.e), math.log(math.e**2 + math.e + 1)
    lost = (2 * (other - same) + math.log(math.e**3 + 2) - 3) / 3  # alike in both directions
    found = vclip.association(s, torch.tensor([4, 4, 7]))
    assert float(found) == pytest.approx(lost, rel=1e-5)


def test_a_face_speaks_with_the_people_it_retrieves(runs: dict[str, Run], store: Store) -> None:
    model = load_model(runs["vclip"].path)
    system, converter = model.nets, training.converter_of(model, vocoder="griffin_lim")
    people = {item.speaker for item in store.items if item.split == "train"}
    assert len(system.candidates) == len(system.voices) == len(people)
    assert system.voices.shape[1] == model.conversion.config.model.style_dim
    torch.testing.assert_close(system.candidates.norm(dim=1), torch.ones(len(people)))
    system.settings = replace(system.settings, retrieved=1, spread=0.0)
    for person in range(len(people)):
        spoken = system.speaker(system.candidates[person : person + 1])
        assert torch.equal(spoken[0], system.voices[person])
    system.settings = replace(system.settings, spread=1.0)
    drawn = [system.speaker(system.candidates[:1]) for _ in range(2)]
    assert torch.equal(*drawn)
    made = converter.convert_voice(
        VOICE, face_reference=face((90, 60, 40), 128), reference_aligned=True
    )
    assert made.waveform.shape == VOICE.shape
    assert "grid_xfavot" in made.provenance["speaks"]
    assert "converted by Vclip" in made.provenance["synthetic"]


def of_sgsim() -> dict[str, dict[str, torch.Tensor]]:
    """State dictionaries laid out as those of SGSIM's published networks, by their shapes."""

    def norm(name: str, width: int) -> Shapes:
        parts = {"weight": (width,), "bias": (width,), "running_mean": (width,)}
        parts |= {"running_var": (width,), "num_batches_tracked": ()}
        return {f"{name}.{part}": shape for part, shape in parts.items()}

    def modulated(name: str, outputs: int, inputs: int, size: int) -> Shapes:
        code = {f"{name}.modulation.weight": (inputs, 512), f"{name}.modulation.bias": (inputs,)}
        return {f"{name}.weight": (1, outputs, inputs, size, size), **code}

    channels = {4 << n: min(512, 32768 // (4 << n)) for n in range(9)}
    g: Shapes = {"input.input": (1, 512, 4, 4), "noises.noise_0": (1, 1, 4, 4)}
    for n in range(8):
        g |= {f"style.{n + 1}.weight": (512, 512), f"style.{n + 1}.bias": (512,)}
    layers = [("conv1", 512, 512), *((f"convs.{n}", 0, 0) for n in range(16))]
    for n, (name, inputs, outputs) in enumerate(layers):
        side = 4 << (n + 1) // 2
        outputs, inputs = channels[side], channels[side // (2 if n % 2 else 1)]
        g |= modulated(f"{name}.conv", outputs, inputs, 3)
        g |= {f"{name}.noise.weight": (1,), f"{name}.activate.bias": (outputs,)}
        g |= {f"{name}.conv.blur.kernel": (4, 4)} if n % 2 else {}
        g[f"noises.noise_{n}"] = (1, 1, side, side)
    for n, width in enumerate(channels.values()):
        name = f"to_rgbs.{n - 1}" if n else "to_rgb1"
        g |= modulated(f"{name}.conv", 3, width, 1) | {f"{name}.bias": (1, 3, 1, 1)}
        g |= {f"{name}.upsample.kernel": (4, 4)} if n else {}

    f: Shapes = {"input_layer.0.weight": (64, 3, 3, 3), "input_layer.2.weight": (64,)}
    f |= norm("input_layer.1", 64) | norm("output_layer.0", 512) | norm("output_layer.4", 512)
    f |= {"output_layer.3.weight": (512, 512 * 49), "output_layer.3.bias": (512,)}
    units = [64] * 3 + [128] * 4 + [256] * 14 + [512] * 3
    for n, (a, b) in enumerate(zip([64, *units], units, strict=False)):
        unit = f"body.{n}.res_layer"
        f |= norm(f"{unit}.0", a) | norm(f"{unit}.4", b)
        f |= {f"{unit}.1.weight": (b, a, 3, 3), f"{unit}.3.weight": (b, b, 3, 3)}
        f |= {f"{unit}.2.weight": (b,), f"{unit}.5.fc1.weight": (b // 16, b, 1, 1)}
        f[f"{unit}.5.fc2.weight"] = (b, b // 16, 1, 1)
        if a != b:
            f[f"body.{n}.shortcut_layer.0.weight"] = (b, a, 1, 1)
            f |= norm(f"body.{n}.shortcut_layer.1", b)

    part = "feature_extractor"
    s: Shapes = {"conv.weight": (3, 1, 3, 3), "conv.bias": (3,), f"{part}.fc.bias": (512,)}
    s |= {f"{part}.conv1.weight": (64, 3, 7, 7), f"{part}.fc.weight": (512, 512)}
    s |= norm(f"{part}.bn1", 64)
    for n, (a, b) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512))):
        for block in range(2):
            at, inputs = f"{part}.layer{n + 1}.{block}", b if block else a
            s |= {f"{at}.conv1.weight": (b, inputs, 3, 3), f"{at}.conv2.weight": (b, b, 3, 3)}
            s |= norm(f"{at}.bn1", b) | norm(f"{at}.bn2", b)
        if n:
            s[f"{part}.layer{n + 1}.0.downsample.0.weight"] = (b, a, 1, 1)
            s |= norm(f"{part}.layer{n + 1}.0.downsample.1", b)
    rng = torch.Generator().manual_seed(0)
    return {
        name: {n: torch.rand((), generator=rng).expand(shape) for n, shape in shapes.items()}
        for name, shapes in {"generator": g, "identity": f, "audio": s}.items()
    }


Shapes = dict[str, tuple[int, ...]]


def test_published_networks_of_sgsim_are_opened(tmp_path: Path) -> None:
    plan, states = planned(tmp_path, "sgsim", preset="paper"), of_sgsim()
    refuses(WeightsError, "stylegan2-ffhq.*No such file", sgsim.published, plan.run, tmp_path)
    average = torch.rand(512)

    def save(changed: str = "", **tensors: Any) -> None:
        for name, state in states.items():
            kept = state | tensors if name == changed else state
            kept = {n: value for n, value in kept.items() if value is not None}
            whole = {"g_ema": kept, "latent_avg": average} if name == "generator" else kept
            torch.save(whole, tmp_path / sgsim.FILES[name])

    save()
    assert plan.settings == sgsim.SystemConfig()
    assert training.PUBLISHED["sgsim"] is sgsim.published
    system = sgsim.published(plan.run, tmp_path)
    sizes = {name: size(system.net[name]) for name in states}
    assert sizes == {"generator": 30_370_060, "identity": 43_797_696, "audio": 11_439_198}
    assert torch.equal(system.latent_avg, average)
    for name, state in states.items():
        own = system.net[name].state_dict()
        assert {*own} == {*state}
        assert all(torch.equal(own[n], value.to(own[n].dtype)) for n, value in state.items())
    for name, key, value, match in (
        ("generator", "to_rgbs.7.bias", None, "missing"),
        ("identity", "body.23.res_layer.2.weight", torch.zeros(7), "expected .512"),
        ("audio", "feature_extractor.fc2.bias", torch.zeros(1), "expected none"),
    ):
        save(name, **{key: value})
        refuses(WeightsError, f"{key} is .*{match}", sgsim.published, plan.run, tmp_path)


def test_layers_of_the_generator_by_hand() -> None:
    """Each sample has a kernel of its own; doubling puts in zeros before the low-pass filter."""
    torch.manual_seed(0)
    layer = sgsim.Modulated(3, 2, 3, 5, doubles=True)
    x, w = torch.randn(2, 3, 4, 4), torch.randn(2, 5)
    scales = w @ layer.modulation.weight.T / 5**0.5 + 1
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    for n in range(2):
        kernel = layer.weight[0] / 27**0.5 * scales[n, :, None, None]
        kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        wide = torch.zeros(1, 3, 11, 11)
        wide[0, :, 2:10:2, 2:10:2] = x[n]  # zeros between, and around
        wide = torch.nn.functional.conv2d(wide, kernel.flip(2, 3))  # (1, 2, 9, 9)
        wide = torch.nn.functional.pad(wide, [1] * 4)
        wanted = torch.nn.functional.conv2d(
            wide.transpose(0, 1), (line[:, None] * line)[None, None]
        )
        torch.testing.assert_close(layer(x, w)[n], wanted[:, 0], atol=1e-5, rtol=1e-5)
    ones = sgsim.LowPass()(torch.ones(1, 1, 6, 6), doubled=True)
    torch.testing.assert_close(ones[..., 1:-1, 1:-1], torch.ones(1, 1, 10, 10))
    small = torch.randn(1, 3, 64, 64)
    repeated = torch.nn.functional.interpolate(small, scale_factor=7)
    pooled = torch.nn.functional.avg_pool2d(repeated, 2)
    torch.testing.assert_close(sgsim.for_clip(small), pooled, atol=1e-5, rtol=1e-5)


def test_a_face_moves_towards_a_voice(runs: dict[str, Run], monkeypatch: Patch) -> None:
    model = load_model(runs["sgsim"].path)
    system, converter = model.nets, training.converter_of(model, vocoder="griffin_lim")
    pictures = [face(colour, 128) for colour in ((90, 60, 40), (30, 90, 150))]
    x = torch.cat([converter._pixels(one, "face", True) for one in pictures])
    voices = [tone(hz, 1.3, np.random.default_rng(0)) for hz in (110.0, 240.0)]
    place = torch.cat([converter.style_of_voice(one).vector for one in voices])
    system.settings = replace(system.settings, steps=12, lr=0.1, similarity=0.0)
    start = system.inverted(x)
    assert float(sgsim.distance(system.drawn(start), x).mean()) < float(
        sgsim.distance(system.drawn(system.codes(x)), x).mean()
    )

    def near(codes: torch.Tensor) -> torch.Tensor:
        return torch.cosine_similarity(system.seen(system.net["generator"](codes))[0], place)

    moved = system.moved(start, place)
    assert bool((near(moved) > near(start)).all())
    converter.system.double()  # every face alone, whatever is beside it
    both = converter.guided(x.double()[[0, 0, 1]], place.double()[[0, 1, 1]])
    alone = converter.guided(x[1:].double(), place[1:].double())
    torch.testing.assert_close(both[2:], alone, atol=1e-6, rtol=0)
    converter.system.float()
    assert not torch.equal(both[0], both[1])
    gone = {}
    for masking, similarity in ((False, 0.0), (False, 10.0), (True, 10.0)):
        held = {"masking": masking, "similarity": similarity, "identity": 0.0}
        system.settings = replace(system.settings, **held)
        moved = system.moved(start, place)
        gone[masking, similarity] = float((moved - start).square().sum())
    assert gone[False, 10.0] < gone[True, 10.0] < gone[False, 0.0]
    made = converter.convert_face(pictures[0], voice_reference=voices[0], aligned=True)
    assert made.image.shape == (32, 32, 3)
    assert "converted by SGSIM" in made.provenance["synthetic"]
    assert made.provenance["task"].startswith("a2i")
    refuses(ConfigError, "voice as output", converter.convert_voice, VOICE, voice_reference=VOICE)
    monkeypatch.setattr(sgsim, "seeing", vclip.seeing)  # dlib's own network
    assert system.seen(x)[1].shape == (2, 128)
    assert float(sgsim.distance(x, x).sum()) == 0.0 < float(sgsim.distance(x, x.flip(0)).min())


def test_published_sgsim_hears_and_converts(root: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    def clip(pixel_values: torch.Tensor) -> SimpleNamespace:
        assert pixel_values.shape[1:] == (3, 224, 224)
        return SimpleNamespace(image_embeds=Light()(pixel_values).repeat(1, 4))

    looks = Mock(to=Mock(return_value=clip))
    monkeypatch.setattr(sgsim, "seeing", lambda name: looks if name == "clip" else Light())
    monkeypatch.setattr(sgsim, "ArcFace", lambda: torch.nn.Flatten())
    small = {"pixels": 32, "latent": 8, "width": 8, "finest": 8, "steps": 2, "inversion_steps": 2}
    plan = planned(tmp_path, "sgsim", preset="paper", data_root=str(root / "data"))
    system = sgsim.SGSIM(sgsim.SystemConfig(**small), plan.run).requires_grad_(False)
    model = training.Trained(system, Standardiser.neutral(), plan.run, 0, tmp_path)
    converter = training.converter_of(model)
    heard = converter._heard(VOICE)
    assert heard.shape == (1, 1, 128, 512)
    assert 0.9 < float(heard.max()) <= 1.0
    rows = heard[0, 0].reshape(512, 128)  # bands by time, after 1.3 s of 10 it is silent
    assert float(rows[:, 18:].max()) == 0.0
    assert int(rows[:, 5].argmax()) < 60  # 120 Hz is one of the lowest bands
    made = converter.convert_face(face((90, 60, 40), 128), voice_reference=VOICE, aligned=True)
    assert made.image.shape == (128, 128, 3)
    refuses(ConfigError, "clip'; expected dlib_face.*-p weights", fit, plan)


def test_divergence_by_hand() -> None:
    mean, log_variance = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[0.0, math.log(3.0)]]])
    wanted = 0.5 * (0.0 + (3.0 + 4.0 - 1.0 - math.log(3.0))) / 2
    assert float(divergence(mean, log_variance)) == pytest.approx(wanted)


def test_the_decoder_by_hand() -> None:
    """One block of it: shuffled samples, and norm, scale and offset of the style's layer."""
    torch.manual_seed(0)
    decoder = adain_vc.Decoder(bands=3, width=2)
    style, z = torch.randn(1, 2), torch.randn(1, 2, 12)
    seen: list[torch.Tensor] = []
    decoder.first_conv_layers[1].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    assert decoder(z, style).shape == (1, 3, 96)

    def styled(x: torch.Tensor, layer: int) -> torch.Tensor:
        known = decoder.conv_affine_layers[layer](style)[0]  # offsets, then scales
        y = (x - x.mean(2, keepdim=True)) / (x.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
        return torch.relu(y * known[2:, None] + known[:2, None])

    h = decoder.in_conv_layer(z)
    h = (h - h.mean(2, keepdim=True)) / (h.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    h = torch.relu(h)
    y = decoder.second_conv_layers[0](styled(decoder.first_conv_layers[0](h), 0))
    apart = torch.stack([y[:, [0, 2]], y[:, [1, 3]]], dim=3).flatten(2)  # even and odd channels
    torch.testing.assert_close(seen[0], styled(apart, 1) + h.repeat_interleave(2, dim=2))


def filters() -> np.ndarray:
    """512 triangles of unit area, evenly spread on Slaney's scale over 12 kHz: (512, 1025)."""
    mels = np.linspace(0, 15 + 27 * np.log(12) / np.log(6.4), 514)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))[:, None]
    hz = np.arange(1025) * 24_000 / 2048
    up, down = (hz - edges[:-2]) / np.diff(edges[:-1], axis=0), (edges[2:] - hz)
    return np.maximum(0, np.minimum(up, down / np.diff(edges[1:], axis=0))) * (
        2 / (edges[2:] - edges[:-2])
    )


def test_a_segment_is_that_of_the_whole_clip_and_turns_back_into_sound() -> None:
    mel, wave = PublishedMel(), np.pad(VOICE, 9000)
    start, stop = mel.trim(wave)
    assert 8000 < start < 9100 < len(wave) - 10_000 < stop
    heard = wave[start:stop]
    emphasised = np.append(heard[0], heard[1:] - np.float32(0.97) * heard[:-1])
    padded = np.pad(emphasised, 1024, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 2048)[::300]
    window = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1200) / 1200), 424)
    bands = filters() @ np.abs(np.fft.rfft(frames * window)).T
    db = np.clip((20 * np.log10(np.maximum(1e-5, bands)) - 20 + 100) / 100, 1e-8, 1)
    np.testing.assert_allclose(mel.levels(heard).numpy(), db, atol=2e-4)
    mel.fit([wave, VOICE])
    whole, part = mel(heard), mel.segment(wave, 40, torch.Generator().manual_seed(3))
    places = [n for n in range(whole.shape[1] - 39) if torch.allclose(whole[:, n : n + 40], part)]
    assert len(places) == 1
    assert mel.segment(VOICE[:3000], 40, torch.Generator()).shape == (512, 40)
    sound = mel.sound(whole, stop - start)
    assert sound.shape == heard.shape
    error = (mel.levels(sound) - mel.levels(heard)).abs().mean()
    assert error < 0.05  # 5 dB


def test_training_learns_and_stops_and_goes_on_exactly(
    root: Path, runs: dict[str, Run], tmp_path: Path, monkeypatch: Patch
) -> None:
    place = {"data_root": str(root / "data"), "steps": 12}
    plan = planned(tmp_path / "whole", **place, overrides={"system.kl": 0.0})
    losses = [
        record["loss"] for record in loop.read(fit(plan).path / loop.METRICS) if "loss" in record
    ]
    assert losses[-1] < 0.9 * losses[0]
    log = training.Session.log

    def stop(session: Any, values: dict[str, float]) -> None:
        log(session, values)
        signal.raise_signal(signal.SIGTERM)

    plan = planned(tmp_path / "half", data_root=str(root / "data"))
    with monkeypatch.context() as patch:
        patch.setattr(training.Session, "log", stop)
        assert fit(plan).step == 1
    resumed, whole = fit(plan, resume="auto"), runs["adain_vc"]
    read = [(run.path / loop.METRICS).read_bytes() for run in (resumed, whole)]
    assert read[0] == read[1]
    first, second = (load_model(run.path).nets.state_dict() for run in (resumed, whole))
    assert all(torch.equal(first[name], value) for name, value in second.items())
    longer = fit(planned(tmp_path / "half", data_root=str(root / "data"), steps=5), resume="auto")
    assert (longer.path, longer.step) == (resumed.path, 5)
    other = planned(tmp_path / "half", **place, overrides={"system.kl": 0.5})
    refuses(ConfigError, "kl is 0.5, expected 1.0", fit, other, resume=str(resumed.path))
    refuses(CheckpointError, "exists already", fit, plan)


def test_the_published_features_are_trained_on(root: Path, tmp_path: Path) -> None:
    sizes = {"system.bands": 512, "train.sample_every": 99}
    plan = planned(tmp_path, data_root=str(root / "data"), steps=1, overrides=sizes)
    features = load_model(fit(plan).path).nets.features
    assert 0.1 < float(features.mean.mean()) < 0.9
    assert 1e-3 < float(features.std.mean()) < 0.5


@pytest.mark.parametrize("system", SYSTEMS)
def test_grids_and_rows_are_those_of_the_system(
    runs: dict[str, Run], store: Store, system: str, monkeypatch: Patch
) -> None:
    model = load_model(runs[system].path)
    task = {"adain_cvc": "i2a", "vclip": "i2a", "sgsim": "a2i"}.get(system, "a2a")
    kind = "face" if system == "sgsim" else "waveform"
    converter = training.converter_of(model, vocoder=vocoder.GriffinLim(iterations=1))
    ((name, grid),) = sample_grids(converter, [store], count=2).items()
    assert (name, len(grid.cells), len(grid.cells[0])) == (task, 2, 2)
    for column, cells in zip(grid.columns, zip(*grid.cells, strict=True), strict=True):
        for cell in cells:
            made, source = (getattr(panel, kind) for panel in (cell, column))
            assert made.shape == ((32, 32, 3) if kind == "face" else source.shape)
            assert np.isfinite(made).all()
    assert not np.array_equal(*(getattr(grid.cells[n][0], kind) for n in range(2)))
    options: dict[str, Any] = {"dataset": "grid", "device": "cpu", "vocoder": "griffin_lim"}
    cfg = Evaluate.resolve(**options, metrics="f0,preservation,verification", conversions=1)
    written = protocol.of_checkpoint(cfg, model, [store]).save()
    rows = tables.read(runs[system].path.parent, ("grid",)).rows
    own = [row for row in rows if row["system"] == system]
    compares = {"verification"} if system in ("vclip", "sgsim") else set()  # it encodes both
    assert {row["task"] for row in own} - {"a2a"} == {task, *compares} - {"a2a"}
    assert {"unusable_outputs", "voicing_agreement", "contour_f"} & {row["metric"] for row in own}
    assert json.loads(written.with_suffix(".json").read_text("utf-8"))["system"] == system


def test_long_speech_and_wrong_requests(runs: dict[str, Run]) -> None:
    voice = training.converter_of(load_model(runs["adain_vc"].path))
    image = training.converter_of(load_model(runs["adain_cvc"].path), vocoder="griffin_lim")
    long = np.tile(VOICE, 11)  # two windows
    made = voice.convert_voice(long, voice_reference=VOICE)
    assert (made.waveform.shape, made.f0.shape) == (long.shape, made.log_mel.shape[1:])
    picture = face((90, 60, 40), 128)
    ask = partial(voice.convert_voice, VOICE)
    refuses(ConfigError, "face as guidance; expected voice-guided", ask, face_reference=picture)
    refuses(ConfigError, "learnt none", ask, latent=3, gender="f")
    refuses(ConfigError, "voice as guidance", image.style_of_voice, VOICE)
    style = image.style_of_face(picture, aligned=True)
    refuses(ConfigError, "face as output", image.convert_face, picture, style=style, aligned=True)
    refuses(CheckpointError, "compared system adain_vc", Converter.load, runs["adain_vc"].path)


def test_the_committed_pages_are_those_of_the_systems() -> None:
    pages = cards.systems()
    assert {*SYSTEMS} < {*pages}
    for name, page in pages.items():
        committed = (ROOT / "docs" / "systems" / f"{name}.md").read_text("utf-8")
        assert committed == page, "run make cards"
    assert "| `paper` | 48,008,256 |" in pages["fragment_vc"]
    assert "(A84, OURS)" in pages["adain_cvc"]


def test_what_cannot_be_trained(root: Path, tmp_path: Path) -> None:
    refuses(ConfigError, "system is 'adain'; did you mean 'adain_vc'", Baseline, system="adain")
    refuses(ConfigError, "system.width is 0", planned, tmp_path, overrides={"system.width": 0})
    refuses(ConfigError, "system.heads is not", planned, tmp_path, overrides={"system.heads": 1})
    refuses(ConfigError, "conversion is ''.*vclip", planned, tmp_path, "vclip", conversion="")
    refuses(ConfigError, "conversion is", planned, tmp_path, conversion="runs/x")
    make_store(tmp_path / "data", corpus="grid", kind="audio", clips=2, seconds=0.6)
    refuses(
        DataError, "no clip of grid has a face and a voice", fit, planned(tmp_path, "adain_cvc")
    )
    assert SYSTEMS == BASELINES
