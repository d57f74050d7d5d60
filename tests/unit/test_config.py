"""Configuration: what is accepted, what is refused and with which words."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import Patch, refuses
from xfavot import config, parameters, presets
from xfavot.audio import vocoder
from xfavot.errors import ConfigError
from xfavot.parameters import Benchmark, Evaluate, Explore, Prepare, Pretrain, Train


def resolve(**given: Any) -> config.RunConfig:
    return Train.resolve(**given).run


# row of the tables: dual domain, cross-modality term, modalities
BOTH = ("image", "audio")
CONFIGURATIONS: dict[str, tuple[bool, bool, tuple[str, ...]]] = {
    "xfavot": (True, True, BOTH),
    "companion": (True, True, BOTH),
    "joint": (False, False, BOTH),
    "joint_xm": (False, True, BOTH),
    "dual_no_xm": (True, False, BOTH),
    "starganv2": (False, False, ("image",)),
    "starganv2vc_oneshot": (False, False, ("audio",)),
}


def test_defaults_of_train_are_a_mini_run_and_of_real_data_the_papers() -> None:
    cfg = resolve()
    assert (cfg.data.dataset, cfg.configuration, cfg.preset) == ("mini", "xfavot", "mini")
    assert cfg.model.image_size == 64
    assert cfg.name == f"mini_xfavot_mini_s0_{config.config_id(cfg)}"
    assert len(config.config_id(cfg)) == 8
    known = config.resolve(dataset="mini", steps=2000, batch_size=4)
    assert known.name.endswith("_29bd01db")  # settings that come later move no run
    paper = resolve(dataset="grid")
    assert paper.preset == "paper"
    for section in ("model", "loss", "train", "pretrain"):
        assert getattr(paper, section) == getattr(config.RunConfig(), section)


def test_parameters_reach_their_settings() -> None:
    given = {"steps": 100, "batch_size": 2, "device": "cuda:1", "precision": "bf16"}
    top = {"seed": 7, "data_root": "d", "run_root": "r"}
    overrides = {"loss.xm": 0, "train.modalities": ["image"], "name": "mine"}
    cfg = resolve(preset="mini", resume="r/x", overrides=overrides, **given, **top)
    assert {name: getattr(cfg.train, name) for name in given} == given
    assert {name: getattr(cfg, name) for name in top} == top
    assert (repr(cfg.loss.xm), cfg.train.modalities, cfg.name) == ("0.0", ("image",), "mine")


OVERRIDES: list[tuple[str, Any, str]] = [
    ("train.lr", "1e-4", "train.lr is '1e-4' (str); expected float; give"),
    ("train.lr", float("nan"), "expected a finite number"),
    ("train.lr", 0.0, "train.lr is 0.0; expected more than 0"),
    ("train.dual_domain", "false", "expected bool"),
    ("trian.lr", 1.0, "trian is not a setting; did you mean 'train'?"),
    ("loss", {"xm": 1.0}, "write loss.<name>: value"),
    ("train.steps", 5, "give it with -p steps"),
    ("data.corpora", ["grid"], "give it with -p dataset"),
    ("loss.xm_form", "clip", "loss.xm_form is 'clip'"),
    ("model.image_size", 48, "expected a power of two"),
    ("model.image_levels", 6, "model.image_levels is 6"),
    ("model.mel_frames", 98, "expected a multiple of 4"),
    ("model.content_width", 12, "expected a multiple of 8"),
    ("train.modalities", "image", "expected tuple; give a list"),
    ("train.modalities", ["image"], "expected 0 with one modality"),
    ("train.ema_decay", 1.0, "train.ema_decay is 1.0"),
    ("name", "../x", "name is '../x'"),
]


@pytest.mark.parametrize(
    ("notebook", "given", "words"),
    [
        (Prepare, {"dataset": "celebahq_vctk"}, "source is ''; expected the folder"),
        (Prepare, {"workers": -2}, "workers is -2"),
        (Prepare, {"source": 2024}, "source is 2024 (int); expected str; "),
        (Prepare, {"steps": 2}, "steps is not a parameter here"),
        (Pretrain, {"network": "asr"}, "network is 'asr'"),
        (Pretrain, {"steps": 0}, "steps is 0"),
        (Explore, {"vocoder": ""}, "vocoder is ''"),
        (Explore, {"device": "tpu"}, "device is 'tpu'"),
        (Benchmark, {"rounds": 0}, "rounds is 0; expected 1 or more"),
        (Benchmark, {"out": " "}, "out is ' '"),
        (Evaluate, {"metrics": "mos"}, "metrics"),
        (Evaluate, {"metrics": " "}, "metrics"),
        (Evaluate, {"conversions": -2}, "conversions is -2"),
        (Evaluate, {"substitute": "x"}, "substitute is 'x'"),
        (Train, {"steps": "abc"}, "steps is 'abc' (str); expected int"),
        (Train, {"steps": 0}, "steps is 0; expected 1 or more"),
        (Train, {"stesp": 5}, "stesp is not a parameter here; did you mean 'steps'?"),
        (Train, {"dataset": "gird"}, "dataset is 'gird'; did you mean 'grid'?"),
        (Train, {"configuration": "../sizes/mini"}, "configuration is '../sizes/mini'"),
        (Train, {"preset": "tiny"}, "preset is 'tiny'; expected one of: mini, paper, small, smoke"),
        (Train, {"device": "gpu"}, "device is 'gpu'; expected auto"),
        (Train, {"data_root": ""}, "data_root is ''"),
        (Train, {"overrides": "loss.xm"}, "overrides is 'loss.xm' (str)"),
        (Train, {"overrides": "a: [1"}, "overrides cannot be read as YAML"),
        (Train, {"overrides": {1: 2}}, "a key of overrides is 1 (int)"),
        *((Train, {"overrides": {name: value}}, words) for name, value, words in OVERRIDES),
    ],
)
def test_refusals_say_what_and_what_else(notebook: Any, given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        _ = notebook.resolve(**given).run


def test_overrides_come_as_mapping_or_as_its_text_and_every_dataset_resolves() -> None:
    for given in ({"loss.xm": 0.5}, '{"loss.xm": 0.5}', "loss.xm: 0.5"):
        assert resolve(overrides=given).loss.xm == 0.5
    assert resolve(overrides="") == resolve(overrides={}) == resolve()
    for dataset in presets.names("datasets"):
        assert resolve(dataset=dataset).data.corpora == config.corpora_of(dataset)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_configurations_are_the_rows_of_the_tables(configuration: str) -> None:
    assert set(presets.names("configurations")) == set(CONFIGURATIONS)
    for preset in ("paper", "small", "mini", "smoke"):
        cfg = resolve(configuration=configuration, preset=preset)
        row = cfg.train.dual_domain, cfg.loss.xm > 0, cfg.train.modalities
        assert row == CONFIGURATIONS[configuration]
        assert config.from_dict(json.loads(json.dumps(config.to_dict(cfg)))) == cfg
        assert cfg.name in config.describe(cfg)


def test_from_dict_gives_defaults_to_newer_settings_and_refuses_unknown_ones() -> None:
    stored = config.to_dict(config.RunConfig())
    del stored["train"]["sources"]
    assert config.from_dict(stored) == config.RunConfig()
    stored["train"]["momentum"] = 0.9
    refuses(ConfigError, r"train\.momentum is not a setting", config.from_dict, stored)


def test_config_id_is_blind_to_places_and_bookkeeping_only() -> None:
    identity = config.config_id(resolve())
    quiet = {"train.log_every": 3, "train.checkpointing": True, "name": "x"}
    overrides = {**quiet, "pretrain.vocoder_steps": 7}
    same = resolve(run_root="elsewhere", data_root="other", device="cpu", overrides=overrides)
    assert config.config_id(same) == identity
    others = {"steps": 5}, {"seed": 1}, {"overrides": {"loss.xm": 0.5}}, {"dataset": "grid"}
    assert identity not in {config.config_id(resolve(**other)) for other in others}
    whole, point = (resolve(overrides={"loss.xm": two}) for two in (2, 2.0))
    assert config.config_id(whole) == config.config_id(point)


def test_what_the_parameters_of_notebooks_define() -> None:
    task = Prepare.resolve(dataset="grid", source="originals", workers=3)
    assert (task.corpora, task.originals, task.processes) == (("grid",), "originals", 3)
    assert Pretrain.resolve().networks == ("f0", "content")
    f0 = Pretrain.resolve(network="f0", steps=5)
    assert (f0.networks, f0.run.pretrain.f0_steps) == (("f0",), 5)
    voices = Pretrain.resolve(network="vocoder", dataset="speech", steps=7)
    assert (voices.networks, voices.run.pretrain.vocoder_steps) == (("vocoder",), 7)
    explore = Explore.resolve(checkpoint="runs/x", device="cpu")
    shown = (explore.checkpoint, explore.corpora, explore.device, explore.vocoder)
    assert shown == ("runs/x", ("mini",), "cpu", vocoder.DEFAULT)
    timed = Benchmark.resolve(dataset="grid", rounds=2, out="/o", seed=4)
    assert (timed.rounds, timed.out, timed.tier) == (2, "/o", "smoke")
    assert (timed.run.preset, timed.run.seed, timed.run.data.dataset) == ("paper", 4, "grid")
    assert Benchmark.resolve().tier == "reduced"
    assert Evaluate.resolve().chosen == parameters.METRICS
    counts: list[tuple[dict[str, Any], int]] = [({}, 24), ({"conversions": 3}, 3)]
    counts += [({"conversions": 0}, 0), ({"dataset": "grid"}, 0)]  # 0: the paper's
    for given, count in counts:
        assert Evaluate.resolve(**given).count == count


PRESETS = {
    "a": "description: base\ntrain:\n  steps: 1\n  lr: 1.0e-3\n",
    "b": "extends: a\ntrain:\n  steps: 2\n",
    "twice": "train: {}\ntrain: {}\n",
    "many": "extends: [a, b]\n",
    "listed": "- 1\n",
}


def test_presets_extend_one_base(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "sizes").mkdir()
    for name, text in PRESETS.items():
        (tmp_path / "sizes" / f"{name}.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    assert presets.load("sizes", "b") == {"train": {"steps": 2, "lr": 1e-3}}
    faults = {"twice": "stands twice", "many": r"is \['a', 'b'\]", "listed": "expected dict"}
    for name, words in (faults | {"c": "preset is 'c'"}).items():
        refuses(ConfigError, words, presets.load, "sizes", name)


def test_names_that_only_papermill_saw_are_refused(monkeypatch: Patch) -> None:
    cells = ["", "steps: int = -1", "# Parameters\nsteps = 3\nstesp = 5\n", "..."]
    shell = SimpleNamespace(user_ns={"In": cells})  # IPython's history of a running notebook
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    with pytest.raises(ConfigError, match="stesp is not a parameter here; did you mean 'steps'"):
        Train.resolve(steps=3)
    cells += ["# Parameters\nsteps = 3\n", "# other\nx = 1"]
    assert Train.resolve(steps=3).steps == 3
    assert parameters.injected() == {"steps": 3}


def test_papermill_itself(tmp_path: Path) -> None:
    """What the real papermill hands over: text for a dict, and no word of an unknown name."""
    papermill = pytest.importorskip("papermill")
    v4 = pytest.importorskip("nbformat").v4
    declared = "steps: int = -1  # training steps\noverrides: dict = {}  # dotted settings"
    place = f"import sys\nsys.path.insert(0, {str(Path(config.__file__).parents[1])!r})\n"
    code = f"{place}from xfavot.parameters import injected\ninjected()"
    cells = [v4.new_code_cell(declared, metadata={"tags": ["parameters"]}), v4.new_code_cell(code)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    path, out = tmp_path / "n.ipynb", tmp_path / "o.ipynb"
    path.write_text(v4.writes(notebook), encoding="utf-8")
    shown = {n: s["inferred_type_name"] for n, s in papermill.inspect_notebook(path).items()}
    assert shown == {"steps": "int", "overrides": "dict"}
    given = {"steps": 7, "overrides": '{"loss.xm": 0.25}', "stesp": 7}
    settings = {"progress_bar": False, "engine_name": "nbclient"}  # a kernel of its own
    done = papermill.execute_notebook(path, out, parameters=given, **settings)
    assert ast.literal_eval(done.cells[-1].outputs[0]["data"]["text/plain"]) == given


def test_folders_also_in_jupyterlab(tmp_path: Path, monkeypatch: Patch) -> None:
    for folder in ("xfavot", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "xfavot" / "config.py").touch()
    for folder, root in (("", "data"), ("notebooks", "../data")):
        monkeypatch.chdir(tmp_path / folder)
        assert resolve().data_root == root
    assert resolve(run_root="/r").run_root == "/r"


SPIN = "print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize(
    ("code", "environment", "shown"),
    [
        ("import xfavot.parameters; print({'torch', 'IPython'} & set(sys.modules))", {}, "set()"),
        (f"import xfavot; {SPIN}", {}, "1000"),
        (f"import xfavot; {SPIN}", {"GOMP_SPINCOUNT": "7"}, "7"),
        (f"import xfavot; {SPIN}", {"OMP_WAIT_POLICY": "a"}, "None"),
        (f"sys.modules['torch'] = sys; import xfavot; {SPIN}", {}, "None"),  # libgomp has read it
    ],
)
def test_importing_is_light(code: str, environment: dict[str, str], shown: str) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP", "OMP"))}
    given: dict[str, Any] = {"cwd": Path(config.__file__).parents[1], "env": kept | environment}
    command = [sys.executable, "-c", f"import os, sys; {code}"]
    assert subprocess.check_output(command, text=True, **given).strip() == shown
