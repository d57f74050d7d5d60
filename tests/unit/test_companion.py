"""The workflow: which notebooks run, and what runs after a failure, a kill or a change."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Patch, refuses
from xfavot.errors import ConfigError
from xfavot.parameters import Paper

pytest.importorskip("snakemake")

# In the place of papermill: leaves the notebook's output, fails or kills when it is told to
NOTEBOOK = """
import json, os, pathlib, signal, sys
notebook, out = [a for a in sys.argv[1:] if a.endswith(".ipynb")]
notebook, out = pathlib.Path(notebook).stem, pathlib.Path(out)
given = json.loads(sys.argv[sys.argv.index("-y") + 1])
for at, word in enumerate(sys.argv):
    if word == "-p":
        given[sys.argv[at + 1]] = sys.argv[at + 2]
root = pathlib.Path(os.environ["TOLD"])
name = out.stem if notebook in ("train", "baseline") else notebook
with (root / "ran.jsonl").open("a") as log:
    log.write(json.dumps([notebook, name, given]) + chr(10))
wrong = (root / "wrong").read_text().split()
if notebook in wrong or any(part in name for part in wrong):
    sys.exit("broken")
if notebook + "!" in wrong:
    os.killpg(0, signal.SIGKILL)
made = {
    "prepare_data": lambda: pathlib.Path(given["data_root"], "mini", "store.json"),
    "evaluate": lambda: out.with_name("evaluation.csv"),
    "cpr_study": lambda: pathlib.Path(given["out"], "paper_tables", "cpr", "cpr.csv"),
    "figures": lambda: pathlib.Path(given["out"], "figures", "fig1", "fig1.png"),
    "tables": lambda: pathlib.Path(given["out"], "paper_tables", "table1", "table1.md"),
    "paper": lambda: out,
}
if notebook in made:
    place = made[notebook]()
else:
    run, step = name.removeprefix("train_").rsplit("_", 1)
    place = pathlib.Path(given["run_root"], run, "checkpoints", "step_" + step, "state.json")
place.parent.mkdir(parents=True, exist_ok=True)
place.write_text(notebook)
"""
ORDER = ["prepare_data", "train", "evaluate", "cpr_study", "figures", "tables", "paper"]
Make = Callable[..., list[str]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: Patch) -> Make:
    """Run the workflow with notebooks that only leave their outputs; names of those that ran."""
    (tmp_path / "papermill.py").write_text(NOTEBOOK)
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("TOLD", str(tmp_path))
    told = tmp_path / "ran.jsonl"

    def run(
        wrong: str = "", *, ends: bool = True, apart: bool = False, **given: object
    ) -> list[str]:
        (tmp_path / "wrong").write_text(wrong)
        told.write_text("")
        places = {f"{name}_root": tmp_path / name for name in ("data", "run")}
        out = os.path.relpath(tmp_path / "out", ROOT)  # from the repository's root
        usual = {"dataset": "mini", "preset": "smoke", "steps": 3, "out": out}
        asked = [f"{k}={v}" for k, v in {**usual, **places, **given}.items()]
        command = [
            "-s",
            str(ROOT / "workflow" / "Snakefile"),
            "--directory",
            str(tmp_path / "state"),
        ]
        command += ["--cores", "1", "--quiet", "all", "--config", *asked]
        from snakemake.cli import main

        if apart:  # in a session of its own, which a notebook can kill
            child = os.fork()
            if not child:
                os.setsid()
                main(command)
                os._exit(0)
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        else:
            with pytest.raises(SystemExit) as ended:
                main(command)
            assert (ended.value.code in (0, None)) == ends
        return [json.loads(line)[0] for line in told.read_text().splitlines()]

    return run


def told(tmp_path: Path) -> dict[str, dict[str, object]]:
    """Parameters of each notebook that ran last, by its name or the run's."""
    lines = map(json.loads, (tmp_path / "ran.jsonl").read_text().splitlines())
    return {name: given for _, name, given in lines}


def test_tables_wait_for_the_study_and_a_second_call_does_nothing(make: Make) -> None:
    ran = make()
    assert sorted(ran) == sorted(ORDER)
    assert ran.index("cpr_study") < ran.index("tables")
    assert make() == []


def test_after_a_kill_only_the_rest_runs(make: Make, tmp_path: Path) -> None:
    killed = make("figures!", apart=True)
    assert (killed[:2], killed[-1]) == (ORDER[:2], "figures")
    left = make()
    assert sorted(killed[:-1] + left) == sorted(ORDER), "only what was killed runs twice"
    assert left[-1] == "paper"
    assert (tmp_path / "out" / "figures" / "fig1" / "fig1.png").is_file()
    assert make() == []
    assert make(substitute="") == ["evaluate", "tables", "paper"]
    (run,) = (tmp_path / "run").glob("mini_xfavot_*")
    (run / "evaluation" / "evaluation.csv").write_text("scored by hand")
    assert make(substitute="", device="cpu") == ["tables", "paper"]


def test_a_failure_stops_what_follows_from_it(make: Make, tmp_path: Path) -> None:
    rows = {"rows": "xfavot,joint,adain_vc", "seed": 2}
    ran = make("_joint_", ends=False, **rows)
    assert sorted(ran) == sorted([*ORDER[:3], "train", "baseline", "evaluate"])
    page = make("_joint_", present=True, **rows)
    assert sorted(page) == ["cpr_study", "figures", "paper", "tables"]
    assert page.index("cpr_study") < page.index("tables")
    given = told(tmp_path)["figures"]
    assert "_xfavot_" in str(given["checkpoint"])
    assert "_adain_vc_" in str(given["others"])
    assert "joint" not in str(given)
    assert make("_joint_", present=True, **rows) == []
    ran = make(**rows)
    assert sorted(ran) == ["cpr_study", "evaluate", "figures", "paper", "tables", "train"]
    trained = next(
        one for name, one in told(tmp_path).items() if name.startswith("train_mini_joint")
    )
    assert (trained["configuration"], trained["seed"], trained["steps"]) == ("joint", 2, 3)
    assert (trained["batch_size"], trained["resume"]) == (4, "auto")
    (run,) = (tmp_path / "run").glob("mini_joint_*")
    ran = make(checkpoint=str(run))  # it is evaluated already, but with another seed
    assert sorted(ran) == ["cpr_study", "evaluate", "figures", "paper", "tables"]
    ran = make(checkpoint=str(run), rows="adain_vc")  # beside it, a row that is new
    assert "baseline" in ran
    given = told(tmp_path)["figures"]
    assert "_joint_" in str(given["checkpoint"])
    assert "_adain_vc_" in str(given["others"])


def test_wrong_parameters() -> None:
    for given, message in (
        ({"rows": " ,"}, "rows"),
        ({"rows": "xfavott"}, "did you mean 'xfavot'"),
        ({"rows": "all", "listed": {"joint": 3}}, "a list of seeds"),
        ({"rows": "all"}, "one at least"),
        ({"answers": "answers"}, "a study and its answers"),
        ({"device": "tpu"}, "device"),
    ):
        refuses(ConfigError, message, Paper.resolve, **given)
    wanted = Paper.resolve(rows="all", listed={"xfavot": [0, 1]}).wanted
    assert wanted == (("xfavot", [0, 1]),)
    assert Paper.resolve().wanted == (("xfavot", [0]),)
    assert Paper.resolve(checkpoint="runs/x").wanted == ()
    assert Paper.resolve(checkpoint="runs/x", rows="joint", seed=4).wanted == (("joint", [4]),)
    assert Paper.resolve(dataset="grid").evaluation["recogniser"] == "espnet_librispeech"
