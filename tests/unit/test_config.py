"""Configuration: what is accepted, what is refused and with which words."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from xfavot import config, parameters, presets
from xfavot.audio import vocoder
from xfavot.errors import ConfigError
from xfavot.parameters import NOTEBOOKS, Explore, Prepare, Pretrain, Train
from xfavot.strict import merge


def resolve(**given: Any) -> config.RunConfig:
    return parameters.Train.resolve(**given).run


CONFIGURATIONS = ("xfavot", "joint", "joint_xm", "dual_no_xm", "starganv2", "starganv2vc_oneshot")


def test_defaults_of_train_are_a_mini_run() -> None:
    cfg = resolve()
    assert (cfg.data.dataset, cfg.configuration, cfg.preset) == ("mini", "xfavot", "mini")
    assert cfg.model.image_size == 64
    assert cfg.name == f"mini_xfavot_mini_s0_{config.config_id(cfg)}"
    assert len(config.config_id(cfg)) == 8


def test_real_data_default_to_the_papers_preset_which_is_the_defaults() -> None:
    cfg = resolve(dataset="grid")
    assert cfg.preset == "paper"
    for section in ("model", "loss", "train", "pretrain"):
        assert getattr(cfg, section) == getattr(config.RunConfig(), section)


def test_parameters_reach_their_settings() -> None:
    cfg = resolve(
        dataset="voxceleb",
        preset="mini",
        steps=100,
        batch_size=2,
        seed=7,
        device="cuda:1",
        precision="bf16",
        data_root="d",
        run_root="r",
        resume="r/x",
        overrides={"loss.xm": 0, "train.modalities": ["image"], "name": "mine"},
    )
    t = cfg.train
    assert (t.steps, t.batch_size, t.device, t.precision) == (100, 2, "cuda:1", "bf16")
    assert (cfg.seed, cfg.data_root, cfg.run_root, cfg.name) == (7, "d", "r", "mine")
    assert cfg.loss.xm == 0.0
    assert isinstance(cfg.loss.xm, float)
    assert t.modalities == ("image",)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"steps": "abc"}, "steps is 'abc' (str); expected int"),
        ({"steps": True}, "steps is True (bool); expected int"),
        ({"steps": 10.0}, "steps is 10.0 (float); expected int"),
        ({"steps": None}, "steps is None (NoneType); expected int"),
        ({"steps": 0}, "steps is 0; expected 1 or more"),
        ({"steps": -5}, "steps is -5; expected 1 or more"),
        ({"batch_size": 0}, "batch_size is 0; expected 1 or more"),
        ({"stesp": 5}, "stesp is not a parameter here; did you mean 'steps'?"),
        ({"dataset": "gird"}, "dataset is 'gird'; did you mean 'grid'?"),
        ({"dataset": 5}, "dataset is 5 (int); expected str"),
        ({"configuration": "joint_mx"}, "did you mean 'joint_xm'?"),
        ({"configuration": "../sizes/mini"}, "configuration is '../sizes/mini'"),
        ({"preset": "tiny"}, "preset is 'tiny'; expected one of: mini, paper, small, smoke"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"device": "gpu"}, "device is 'gpu'; expected auto"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"data_root": ""}, "data_root is ''"),
        ({"resume": True}, "resume is True (bool); expected str"),
        ({"overrides": [1]}, "overrides is [1] (list); expected dict"),
        ({"overrides": "loss.xm"}, "overrides holds 'loss.xm' (str)"),
        ({"overrides": "a: [1"}, "overrides cannot be read as YAML"),
        ({"overrides": {1: 2}}, "a key of overrides is 1 (int)"),
        ({"overrides": {"train.lr": "1e-4"}}, "train.lr is '1e-4' (str); expected float; in YAML"),
        ({"overrides": "train.lr: 1e-4"}, "in YAML write 1.0e-4"),
        ({"overrides": {"train.lr": float("nan")}}, "expected a finite number"),
        ({"overrides": {"train.lr": 0.0}}, "train.lr is 0.0; expected more than 0"),
        ({"overrides": {"train.dual_domain": "false"}}, "expected bool"),
        ({"overrides": {"train.dual_domain": 0}}, "expected bool"),
        ({"overrides": {"train.lrr": 1.0}}, "train.lrr is not a setting; did you mean 'lr'?"),
        ({"overrides": {"trian.lr": 1.0}}, "trian is not a setting; did you mean 'train'?"),
        ({"overrides": {"loss.tau.x": 1.0}}, "loss.tau.x is not a setting"),
        ({"overrides": {"loss": {"xm": 1.0}}}, "write loss.<name>: value"),
        ({"overrides": {"loss": 1.0}}, "loss is 1.0 (float); expected a mapping"),
        ({"overrides": {"train.steps": 5}}, "give it with -p steps"),
        ({"overrides": {"data.dataset": "grid"}}, "give it with -p dataset"),
        ({"overrides": {"loss.xm_form": "clip"}}, "loss.xm_form is 'clip'"),
        ({"overrides": {"loss.sty": -1.0}}, "loss.sty is -1.0; expected 0 or more"),
        ({"overrides": {"model.image_size": 48}}, "expected a power of two"),
        ({"overrides": {"model.image_levels": 6}}, "model.image_levels is 6"),
        ({"overrides": {"model.mel_frames": 98}}, "expected a multiple of 4"),
        ({"overrides": {"model.content_width": 12}}, "expected a multiple of 8"),
        ({"overrides": {"train.modalities": ["video"]}}, "train.modalities is ('video',)"),
        ({"overrides": {"train.modalities": "image"}}, "expected a list"),
        ({"overrides": {"train.modalities": ["image"]}}, "expected 0 with one modality"),
        ({"overrides": {"train.ema_decay": 1.0}}, "train.ema_decay is 1.0"),
        ({"overrides": {"name": "../x"}}, "name is '../x'"),
    ],
)
def test_refusals_say_what_and_what_else(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(**given)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [{"loss.xm": 0.5}, '{"loss.xm": 5e-1}', "{loss.xm: 0.5}", "loss.xm: 0.5"],
    ids=["dict (papermill -y)", "JSON (papermill -p)", "YAML flow", "YAML"],
)
def test_overrides_come_as_mapping_or_as_its_text(overrides: object) -> None:
    assert resolve(overrides=overrides).loss.xm == 0.5


def test_empty_overrides_change_nothing() -> None:
    assert resolve(overrides="") == resolve(overrides={}) == resolve()


@pytest.mark.parametrize("dataset", presets.names("datasets"))
def test_every_dataset_resolves(dataset: str) -> None:
    cfg = resolve(dataset=dataset, preset="smoke")
    assert cfg.data.corpora == config.corpora_of(dataset)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("preset", ["paper", "small", "mini", "smoke"])
def test_every_configuration_and_preset_resolve_and_survive_json(
    configuration: str, preset: str
) -> None:
    cfg = resolve(configuration=configuration, preset=preset)
    assert config.from_dict(json.loads(json.dumps(config.to_dict(cfg)))) == cfg
    assert cfg.name in config.describe(cfg)


def test_configurations_are_the_rows_of_the_tables() -> None:
    assert set(presets.names("configurations")) == set(CONFIGURATIONS)
    rows = {name: resolve(configuration=name) for name in CONFIGURATIONS}
    assert rows["xfavot"].train.dual_domain
    assert rows["xfavot"].loss.xm > 0
    assert not rows["joint"].train.dual_domain
    assert rows["joint"].loss.xm == 0
    assert not rows["joint_xm"].train.dual_domain
    assert rows["joint_xm"].loss.xm > 0
    assert rows["dual_no_xm"].train.dual_domain
    assert rows["dual_no_xm"].loss.xm == 0
    assert rows["starganv2"].train.modalities == ("image",)
    assert rows["starganv2vc_oneshot"].train.modalities == ("audio",)


def test_from_dict_refuses_what_it_does_not_know() -> None:
    stored = config.to_dict(resolve())
    stored["train"]["momentum"] = 0.9
    with pytest.raises(ConfigError, match=r"train\.momentum is not a setting"):
        config.from_dict(stored)


def test_from_dict_gives_defaults_to_newer_settings() -> None:
    stored = config.to_dict(config.RunConfig())
    del stored["train"]["sources"]
    assert config.from_dict(stored) == config.RunConfig()


def test_config_id_is_blind_to_places_and_bookkeeping_only() -> None:
    cfg = resolve()
    same = resolve(
        run_root="elsewhere",
        data_root="other",
        device="cpu",
        overrides={
            "train.log_every": 3,
            "train.keep_checkpoints": 9,
            "name": "x",
            "pretrain.vocoder_steps": 7,
        },
    )
    assert config.config_id(same) == config.config_id(cfg)
    for other in ({"steps": 5}, {"seed": 1}, {"overrides": {"loss.xm": 0.5}}, {"dataset": "grid"}):
        assert config.config_id(resolve(**other)) != config.config_id(cfg)


def test_int_for_float_is_the_same_run() -> None:
    whole = resolve(overrides={"loss.xm": 2})
    assert config.config_id(whole) == config.config_id(resolve(overrides={"loss.xm": 2.0}))


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve().train.steps = 1  # type: ignore[misc]


def test_prepare() -> None:
    task = Prepare.resolve(dataset="grid", source="originals", workers=3)
    assert (task.corpora, task.originals, task.processes) == (("grid",), "originals", 3)
    assert Prepare.resolve().processes >= 1
    with pytest.raises(ConfigError, match="source is empty; expected the folder of originals"):
        Prepare.resolve(dataset="celebahq_vctk")
    with pytest.raises(ConfigError, match="workers is -2"):
        Prepare.resolve(workers=-2)
    with pytest.raises(ConfigError, match="steps is not a parameter here"):
        Prepare.resolve(steps=2)


def test_pretrain() -> None:
    assert Pretrain.resolve().networks == ("f0", "content")
    task = Pretrain.resolve(network="f0", steps=5)
    assert task.networks == ("f0",)
    assert task.run.pretrain.f0_steps == 5
    assert task.run.pretrain.content_steps == resolve().pretrain.content_steps
    assert task.run.train == resolve().train
    task = Pretrain.resolve(network="vocoder", dataset="speech", steps=7)
    assert (task.networks, task.run.pretrain.vocoder_steps) == (("vocoder",), 7)
    assert task.run.pretrain.f0_steps == resolve(dataset="speech").pretrain.f0_steps
    with pytest.raises(ConfigError, match="network is 'asr'"):
        Pretrain.resolve(network="asr")
    with pytest.raises(ConfigError, match="steps is 0"):
        Pretrain.resolve(steps=0)


def test_explore() -> None:
    assert Explore.resolve().vocoder == vocoder.DEFAULT
    with pytest.raises(ConfigError, match="vocoder is ''"):
        Explore.resolve(vocoder="")
    task = Explore.resolve(checkpoint="runs/x", device="cpu")
    assert (task.checkpoint, task.corpora, task.device) == ("runs/x", ("mini",), "cpu")
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        Explore.resolve(device="tpu")


def test_merge_lays_over_without_changing_either() -> None:
    base, over = {"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}, "c": 4}
    assert merge(base, over) == {"a": {"x": 1, "y": 3}, "b": 1, "c": 4}
    assert base == {"a": {"x": 1, "y": 2}, "b": 1}


def write(folder: Path, **files: str) -> None:
    (folder / "sizes").mkdir()
    for name, text in files.items():
        (folder / "sizes" / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_presets_extend_one_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        a="description: base\ntrain:\n  steps: 1\n  lr: 1.0e-3\n",
        b="extends: a\ntrain:\n  steps: 2\n",
        circle="extends: round\n",
        round="extends: circle\n",
        twice="train: {}\ntrain: {}\n",
        many="extends: [a, b]\n",
        listed="- 1\n",
    )
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    assert presets.load("sizes", "b") == {"train": {"steps": 2, "lr": 1e-3}}
    for name, words in {
        "circle": "is a circle",
        "twice": "stands twice",
        "many": "expected one name",
        "listed": "expected a mapping",
        "c": "preset is 'c'",
    }.items():
        with pytest.raises(ConfigError, match=words):
            presets.load("sizes", name)


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """IPython's history of a running notebook."""
    cells: list[str] = ["", "steps: int = -1"]
    shell = SimpleNamespace(user_ns={"In": cells})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    return cells


def test_names_that_only_papermill_saw_are_refused(history: list[str]) -> None:
    history += ["# Parameters\nsteps = 3\nstesp = 5\n", "..."]
    with pytest.raises(ConfigError, match=r"stesp was given with -p .* did you mean 'steps'"):
        Train.resolve(steps=3)
    history += ["# Parameters\nsteps = 3\n", "# other\nx = 1"]
    assert Train.resolve(steps=3).steps == 3
    assert parameters.injected() == {"steps": 3}


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_every_notebook_reads_the_injected_cell(notebook: str, history: list[str]) -> None:
    history.append("# Parameters\nfoo = 1")
    with pytest.raises(ConfigError, match="foo was given with -p"):
        NOTEBOOKS[notebook].resolve()


def test_papermill_itself(tmp_path: Path) -> None:
    """What the real papermill hands over: text for a dict, and no word of an unknown name."""
    papermill = pytest.importorskip("papermill")
    nbformat = pytest.importorskip("nbformat")
    declared = list(parameters.describe(Train))
    names = ", ".join(f"{name}={name}" for name, *_ in declared)
    cells = [
        nbformat.v4.new_code_cell(parameters.cell(Train), metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            f"import sys\nsys.path.insert(0, {str(Path(config.__file__).parents[1])!r})\n"
            "from xfavot.parameters import Train\n"
            f"cfg = Train.resolve({names}).run\ncfg.train.steps, cfg.loss.xm"
        ),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    path = tmp_path / "n.ipynb"
    nbformat.write(notebook, path)
    shown = papermill.inspect_notebook(str(path))
    assert list(shown) == [name for name, *_ in declared]
    assert {n: s["inferred_type_name"] for n, s in shown.items()} == {
        name: kind for name, kind, *_ in declared
    }
    given = {"steps": 7, "overrides": '{"loss.xm": 0.25}'}
    done = papermill.execute_notebook(
        str(path), str(tmp_path / "o.ipynb"), parameters=given, progress_bar=False
    )
    assert done.cells[-1].outputs[0]["data"]["text/plain"] == "(7, 0.25)"
    with pytest.raises(papermill.exceptions.PapermillExecutionError, match="stesp was given"):
        papermill.execute_notebook(
            str(path), str(tmp_path / "o.ipynb"), parameters={"stesp": 7}, progress_bar=False
        )


def test_folders_are_those_of_the_repository_also_in_jupyterlab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xfavot").mkdir()
    (tmp_path / "xfavot" / "config.py").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve().data_root == "data"
    monkeypatch.chdir(tmp_path / "notebooks")
    assert resolve().data_root == "../data"
    assert resolve(run_root="/r").run_root == "/r"


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_defaults_are_of_their_type_and_plain(notebook: str) -> None:
    for name, kind, default, help in parameters.describe(NOTEBOOKS[notebook]):
        assert type(default).__name__ == kind, name
        assert help, name
        assert yaml.safe_load(json.dumps(default)) == default


def test_importing_config_needs_neither_torch_nor_ipython() -> None:
    heavy = "{'torch', 'IPython', 'papermill'}"
    code = f"import sys, xfavot.parameters; print({heavy} & set(sys.modules))"
    root = Path(config.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "set()"
