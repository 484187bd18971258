"""The training app as its users run it: one run, sweeps, and everything that can be typed wrong."""

import json
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf
from on_disk import image_tree
from PIL import Image

from repro import models
from repro.config import Dataset, Mode
from repro.config.errors import ReproError
from repro.config.folders import CONF
from repro.records import read_history, read_info
from repro.sweeps import sweeper
from repro.sweeps.arguments import expand_sweep
from repro.sweeps.jobs import QUIET, Composer
from repro.training import lifecycle

SMOKE = ("scale=smoke", "tracking=disabled")
EXPERIMENTS = sorted(
    p.relative_to(CONF / "experiment").with_suffix("").as_posix() for p in CONF.glob("experiment/*/*")
)


@pytest.mark.parametrize(
    ("arguments", "expanded"),
    [
        (["sweep=fig5a", "seed=7"], ["sweep=figure", "hydra.sweeper.params.experiment=fig5a/*", "seed=7"]),
        (["sweep=all"], ["sweep=all"]),
        (["sweep=null", "seed=1"], ["sweep=null", "seed=1"]),
        (["-m", "experiment=fig5a/*"], ["-m", "experiment=glob(fig5a/*)"]),
        (["experiment=fig5a/*,fig5b/wd_1e-3"], ["experiment=fig5a/*,fig5b/wd_1e-3"]),
        (["--config-dir", "mine", "sweep=fig0"],
         ["--config-dir", "mine", "sweep=figure", "hydra.sweeper.params.experiment=fig0/*"]),
        (["--config-dir=mine", "sweep=own"], ["--config-dir=mine", "sweep=own"]),
        (["hydra.searchpath=[file://mine]", "sweep=own"], ["hydra.searchpath=[file://mine]", "sweep=own"]),
    ],
)  # fmt: skip
def test_a_sweep_of_any_figure_is_one_rule(tmp_path, monkeypatch, arguments, expanded):
    (tmp_path / "mine/experiment/fig0").mkdir(parents=True)
    (tmp_path / "mine/sweep").mkdir()
    (tmp_path / "mine/sweep/own.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert expand_sweep(arguments) == expanded


def test_a_single_run_refuses_a_launcher_that_it_would_not_use():
    assert expand_sweep(["experiment=fig5a/clr_3.0", "hydra/launcher=local"])
    assert expand_sweep(["-m", "experiment=fig5a/clr_3.0", "hydra/launcher=slurm"])
    assert expand_sweep(["sweep=fig5a", "hydra/launcher=slurm"])
    for show in (expand_sweep, lambda arguments: sweeper.show(arguments, "cost")):
        with pytest.raises(
            ReproError, match="^hydra/launcher=slurm: a single run is trained by this process; with -m"
        ):
            show(["experiment=fig5a/clr_3.0", "hydra/launcher=slurm"])


@pytest.mark.parametrize("name", ["fig99", "figure", ""])
def test_a_sweep_that_there_is_not_is_named(name):
    with pytest.raises(ReproError, match=f"sweep={name}: no such sweep; choose from all, fig10a, fig10b, fig11a"):
        expand_sweep([f"sweep={name}"])


def test_a_sweep_changes_a_schedule_that_only_its_experiments_have(run_app):
    """Figure 10a's momentum cycles; the composition before any experiment is chosen has a constant one."""
    change = "schedule.momentum.min_momentum=0.98"
    for arguments in (["sweep=fig10a"], ["-m", "experiment=fig10a/wd_1e-3,fig10a/wd_1e-2"]):
        done = run_app("status", *arguments, "scale=smoke", "seed=0", change, "--json")
        assert done.returncode == 0, done.stderr
        assert all(change in row["run"] for row in json.loads(done.stdout))


def test_several_sweeps_are_named_as_experiments():
    said = "it takes one name; for several, -m 'experiment=fig5a/\\*,fig8b/\\*' 'seed=range\\(4\\)'"
    with pytest.raises(ReproError, match=f"sweep=fig5a,fig8b: {said}"):
        expand_sweep(["sweep=fig5a,fig8b"])


def test_every_kind_of_experiment_trains(resolved, tmp_path):
    """One of each network, data set and schedule together; test_snapshots.py has what starts from another run."""
    kinds = {}
    for experiment in EXPERIMENTS:
        config = resolved(f"experiment={experiment}", *SMOKE)
        if config.start.curve:
            continue
        shapes = [part["shape"] for part in (config.schedule.lr, config.schedule.momentum)]
        kinds.setdefault((config.model.name, config.dataset.name, config.dataset.mirror, *shapes), config)
    for config in kinds.values():
        folder = tmp_path / config.curve
        lifecycle.run(config, folder)
        info, history = read_info(folder), read_history(folder)
        assert info["status"] == "finished", config.curve
        assert history[-1]["iteration"] == config.iterations
        assert info["final_accuracy"] == history[-1]["test_accuracy"]
        assert info["best_accuracy"] == max(row["test_accuracy"] for row in history)
        assert (folder / "weights.pt").exists()
    assert {model for model, *_ in kinds} == set(models.networks())


def test_a_finished_run_is_not_trained_again(resolved, tmp_path):
    config = resolved("experiment=fig5a/clr_3.0", *SMOKE)
    lifecycle.run(config, tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    lifecycle.run(config, tmp_path)
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_diverged_run_is_a_result(resolved, tmp_path):
    config = resolved("experiment=fig5a/clr_3.0", *SMOKE, "schedule.lr.max_lr=1e30", "schedule.lr.base_lr=1e30")
    lifecycle.run(config, tmp_path)
    info = read_info(tmp_path)
    assert info["status"] == "diverged"
    assert info["last_iteration"] == read_history(tmp_path)[-1]["iteration"]


def test_a_run_that_is_cut_short_says_so_in_its_log(resolved, tmp_path, caplog):
    lifecycle.run(resolved("experiment=fig8b/tbs512", "iterations=2000", *SMOKE), tmp_path)
    assert (
        "note: fig8b/tbs512 ends at iteration 2000 (2 at scale smoke), inside a cycle that ends at 8"
        in caplog.text
    )


def test_a_precision_that_a_cpu_lacks_is_refused_before_anything_is_recorded(resolved, tmp_path):
    config = resolved("experiment=fig5a/clr_3.0", "engine.precision=tf32", "device=cpu", *SMOKE)
    with pytest.raises(
        ReproError, match="engine.precision=tf32: device=cpu does not support it; use float32, or device=cuda"
    ):
        lifecycle.run(config, tmp_path)
    assert not (tmp_path / "history.jsonl").exists()


def test_a_failing_run_records_its_reason(resolved, tmp_path, monkeypatch):
    from repro.training import loop

    def broken(*args):
        yield {"iteration": 0, "lr": 0.1, "momentum": 0.9, "train_loss": None, "test_loss": 2.3, "test_accuracy": 0.1,
               "images_per_second": None}  # fmt: skip
        raise RuntimeError("a bug")

    monkeypatch.setattr(loop, "train", broken)
    with pytest.raises(RuntimeError):
        lifecycle.run(resolved("experiment=fig5a/clr_3.0", *SMOKE), tmp_path)
    assert read_info(tmp_path)["reason"] == "RuntimeError: a bug"
    assert len(read_history(tmp_path)) == 1


def test_out_of_memory_is_one_line(resolved, tmp_path, monkeypatch):
    from repro.training import loop

    def greedy(*args):
        raise MemoryError
        yield

    with (
        monkeypatch.context() as patch,
        pytest.raises(ReproError, match=r"out of memory on cpu \(MemoryError\); stop the other processes"),
    ):
        patch.setattr(loop, "train", greedy)
        lifecycle.run(resolved("experiment=fig5a/clr_3.0", *SMOKE), tmp_path)
    assert read_info(tmp_path)["status"] == "failed"
    lifecycle.run(resolved("experiment=fig5a/clr_3.0", *SMOKE), tmp_path)
    assert read_info(tmp_path)["status"] == "finished"


def test_an_allocation_that_fails_is_one_line(resolved, tmp_path, monkeypatch):
    from repro.training import loop

    def greedy(*args):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3145728 bytes.")
        yield

    monkeypatch.setattr(loop, "train", greedy)
    with pytest.raises(
        ReproError, match=r"^out of memory on cpu \(another 3 MiB are not free\); .* smaller batch_size"
    ):
        lifecycle.run(resolved("experiment=fig5a/clr_3.0", *SMOKE), tmp_path)
    assert read_info(tmp_path)["status"] == "failed"


def test_images_that_the_network_cannot_take_are_one_line_before_training(resolved, tmp_path):
    tree = image_tree(tmp_path / "images", 1, 1)
    for file in tree.glob("*/*/*.png"):
        Image.new("RGB", (30, 32)).save(file)
    config = resolved("experiment=fig5a/clr_3.0", *SMOKE)
    config.dataset = Dataset(name="cifar10", root=str(tree), cache=str(tmp_path / "cache"))
    message = (
        "model.name=resnet56_superconv: it does not accept images of 30x32 pixels .height and width must be multip"
    )
    with pytest.raises(ReproError, match=message):
        lifecycle.run(config, tmp_path / "run")
    assert read_info(tmp_path / "run")["status"] == "failed"
    config.dataset.resolution = 8
    lifecycle.run(config, tmp_path / "run")
    assert read_info(tmp_path / "run")["status"] == "finished"


def test_a_place_that_cannot_be_written_is_one_line(run_app):
    done = run_app("train", "experiment=fig5a/clr_3.0", "output=/proc/nothing", *SMOKE)
    assert done.returncode == 1
    assert done.stderr.startswith("error: /proc/nothing")
    assert len(done.stderr.splitlines()) == 1


def test_one_run_lands_in_its_folder_and_can_be_evaluated(run_app, tmp_path):
    done = run_app("train", "experiment=fig5a/clr_3.0", "seed=3", *SMOKE)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "multirun_outputs/smoke/fig5a/clr_3.0/seed3"
    last = read_history(folder)[-1]
    assert "iteration 10/10" in done.stdout
    again = run_app("evaluate", str(folder))
    assert again.returncode == 0, again.stderr
    found, recorded, verdict = again.stdout.splitlines()
    assert found.split()[1:] == recorded.split()[1:]
    assert found.split()[-1] == f"{last['test_accuracy']:.4%}"
    assert verdict == "they agree"
    missing = run_app("evaluate", "nowhere")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: nowhere: it has no run.json")


def test_a_sweep_trains_a_figure_and_launching_it_again_trains_nothing(run_app, tmp_path):
    done = run_app("train", "sweep=fig5b", "seed=7", *SMOKE)
    assert done.returncode == 0, done.stderr
    home = tmp_path / "multirun_outputs/smoke"
    trained = {p.parent.relative_to(home).as_posix() for p in home.rglob("run.json")}
    assert trained == {"fig5a/clr_3.0/seed7", *(f"fig5b/wd_1e-{k}/seed7" for k in (3, 5, 6))}
    assert "[4/4]" in done.stderr
    again = run_app("train", "sweep=fig5b", "seed=7", *SMOKE)
    assert "4 of 4 runs are finished already" in again.stdout
    single = run_app("train", "experiment=fig5b/wd_1e-6", "seed=8", "scale=smoke", "tracking=disabled")
    assert single.returncode == 0
    inside, alone = (read_info(home / f"fig5b/wd_1e-6/seed{k}")["config"] for k in (7, 8))
    assert {**inside, "seed": 8} == alone  # a run and the same run inside a sweep resolve alike


def test_an_interrupted_sweep_says_so_and_goes_on_when_launched_again(tmp_path, run_app):
    command = [sys.executable, "-m", "repro.train", "-m", "experiment=fig5a/clr_3.0", "seed=0,1", "scale=smoke"]
    command += ["tracking=disabled", "iterations=1000000", "test_every=1"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "multirun_outputs/smoke/fig5a/clr_3.0/iterations=1000000,test_every=1/seed0"
    deadline = time.monotonic() + 120
    while len(read_history(folder)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "interrupted; run the same command again to resume"
    assert "Traceback" not in errors
    assert read_info(folder)["status"] == "interrupted"


def test_seeds_share_what_composing_takes(composed):
    """And get what Hydra composes for each."""
    composed("experiment=fig5a/clr_3.0")  # Hydra is set up
    loader = GlobalHydra.instance().config_loader()
    asked, load = [], loader.load_sweep_config
    sweep = loader.load_configuration("train", [], RunMode.MULTIRUN)
    composer = Composer(SimpleNamespace(load_sweep_config=lambda *a: asked.append(a) or load(*a)), sweep)
    jobs = [["experiment=fig8b/tbs512", f"seed={k}", *rest] for rest in ([], ["batch_size=64"]) for k in (0, 7)]
    for overrides in jobs:
        job = composer.job(overrides)
        expected = load(sweep, [*overrides, QUIET])
        expected.hydra.sweep = job.composed.hydra.sweep  # where the job has its folder as text
        expected.hydra.job.num, expected.hydra.job.id = 0, "0"
        assert OmegaConf.to_container(job.composed) == OmegaConf.to_container(expected)
        assert job.config.seed == int(overrides[1].removeprefix("seed="))
        assert job.folder.name == f"seed{job.config.seed}"
    assert len(asked) == 2


def test_ordinary_multirun_over_any_value(run_app, tmp_path):
    values = "regularization.weight_decay=1e-3,1e-5"
    done = run_app("train", "-m", "experiment=fig5a/clr_3.0,fig5a/piecewise_0.1_short", values, *SMOKE)
    assert done.returncode == 0, done.stderr
    home = tmp_path / "multirun_outputs/smoke/fig5a"
    found = sorted(p.parent.relative_to(home).as_posix() for p in home.rglob("run.json"))
    assert found == [
        f"{curve}/regularization.weight_decay={value}/seed0"
        for curve in ("clr_3.0", "piecewise_0.1_short")
        for value in ("0.001", "1e-05")
    ]
    assert read_info(home / found[0])["config"]["regularization"]["weight_decay"] == 0.001


def test_a_new_curve_is_one_file(run_app, tmp_path):
    """One YAML file more, and the curve trains in its figure's sweep and is drawn."""
    folder = tmp_path / "mine/experiment/fig5a"
    folder.mkdir(parents=True)
    shutil.copy(CONF / "experiment/fig5b/wd_1e-3.yaml", folder / "clr_heavy.yaml")
    (tmp_path / "mine/scale").mkdir()
    smoke = (CONF / "scale/smoke.yaml").read_text()
    (tmp_path / "mine/scale/own.yaml").write_text(smoke.replace("name: smoke", "name: own"))
    own = ("scale=own", QUIET)
    mine = ("--config-dir", str(tmp_path / "mine"))
    done = run_app("train", "experiment=glob(fig5a/clr*)", *mine, "-m", "seed=0", *own)  # options among overrides
    assert done.returncode == 0, done.stderr
    info = read_info(tmp_path / "multirun_outputs/own/fig5a/clr_heavy/seed0")
    assert info["config"]["regularization"]["weight_decay"] == 1e-3
    again = run_app("train", f"hydra.searchpath=[{tmp_path / 'mine'}]", "experiment=fig5a/clr_heavy", *own)
    assert again.returncode == 0, again.stderr
    assert read_info(tmp_path / "multirun_outputs/own/fig5a/clr_heavy/seed0") == info  # it is finished already
    drawn = run_app("figures", "figure=fig5a", *mine, "scale=own")
    assert drawn.returncode == 0, drawn.stderr
    assert "clr_heavy (1 of 4 seeds)" in drawn.stdout
    assert "CLR 0.1-3.0 (1 of 4 seeds)" in drawn.stdout


def test_a_sweep_names_every_failed_run_and_trains_the_others(run_app, tmp_path):
    done = run_app("train", "-m", "dataset.name=kmnist,digits,emnist", "experiment=fig5a/clr_3.0", *SMOKE)
    assert done.returncode == 1
    lines = done.stderr.splitlines()[-3:]
    assert lines[0].endswith("2 of 3 runs failed:")
    assert "dataset.name=kmnist/seed0: dataset.name=kmnist: choose from digits, cifar10, cifar100" in lines[1]
    assert "dataset.name=emnist/seed0: dataset.name=emnist: choose from digits, cifar10, cifar100" in lines[2]
    home = tmp_path / "multirun_outputs/smoke/fig5a/clr_3.0"
    assert read_info(home / "seed0")["status"] == "finished"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=fig9/x"], "experiment=fig9/x: no such experiment; choose from custom, fig10a/wd_1.8e-3"),
        (["experiment=fig15b"], "no such experiment; sweep=fig15b trains all of fig15b/tbs1024, fig15b/tbs256"),
        (["experiment=fig8b/tbs513"], "no such experiment; did you mean fig8b/tbs512 or "),
        (["experiment=[fig5a/clr_3.0,fig8b/tbs512]"], "experiment=[...]: it takes one name; several need -m"),
        (["dataset=imagenet"], "dataset=imagenet: no such choice; choose from cifar10, cifar100"),
        (["batch_size=abc"], "batch_size=abc: Value 'abc' of type 'str' could not be converted to Integer"),
        (["update=adam"], "update=adam: Invalid value 'adam', expected one of [caffe, torch]"),
        (["batch_size=-5"], "batch_size=-5 is not positive"),
        (["itertions=5"], "itertions: no such key; did you mean iterations"),
        (["+batchsize=64"], "batchsize: no such key; did you mean batch_size?"),
        (["schedule=null"], "schedule=null: a group is never null; choose one of its options"),
        (["scale=Null"], "scale=Null: a group is never null; choose one of its options"),
        (
            ["start.curve=fig5a/clr_3.0", "start.iteration=5", "start.changes=['model=null']", "dataset=digits"],
            "error: a config group is never null; choose one of its options",
        ),
        (["dataset=null", "dataset.cache=null"], "dataset=null: a group is never null; choose one of its options"),
        (["figure=fig5a"], "figure=: no such choice here; python -m repro.figures and repro.report take figure="),
        (["method=lr_range"], "method=: no such choice here; python -m repro.search takes method="),
        (["output="], "output= is empty; name a folder"),
        (["model.name=vgg", "dataset=digits"], "model.name=vgg: choose from cnn3, lenet"),
        (["device=cuda:99", "dataset=digits"], "device=cuda:99:"),
        (["-m", "seed=0,0"], "two jobs would write into multirun_outputs/paper/custom/seed0"),
        (["-m", "tracking=offline,disabled"], "two jobs would write into"),
        (["-m", "experiment=glob(fig7/*)"], "experiment=glob(fig7/*): nothing matches"),
        (["-m", "batch_size=1000,-1"], "batch_size=-1: batch_size=-1 is not positive"),
    ],
)
def test_what_is_typed_wrong_is_one_line(run_app, tmp_path, arguments, message):
    done = run_app("train", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    records = list(tmp_path.rglob("run.json"))  # of what only the run itself could find out
    assert not records or ("dataset=digits" in arguments and read_info(records[0].parent)["status"] == "failed")
    assert "dataset=digits" in arguments or not list(
        tmp_path.iterdir()
    )  # what is wrong as it is typed leaves nothing


def test_an_unreadable_root_is_one_line(run_app):
    done = run_app("train", "dataset.root=/nothing/here", "tracking=disabled", XDG_CACHE_HOME="/nothing")
    assert done.returncode == 1
    assert "dataset.root=/nothing/here: cifar10 " in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_help_shows_the_groups(run_app):
    done = run_app("train", "--help")
    assert done.returncode == 0
    for group in (
        "model: ",
        "dataset: ",
        "schedule: ",
        "regularization: ",
        "scale: ",
        "tracking: ",
        "sweep: ",
    ):
        assert f"\n{group}" in done.stdout
    assert "experiment/fig5a: clr_3.0, piecewise_0.1" in done.stdout


def test_disabled_tracking_needs_no_wandb(run_app, tmp_path):
    (tmp_path / "wandb.py").write_text("raise ImportError('there is no wandb here')")
    done = run_app("train", "experiment=fig5a/clr_3.0", *SMOKE)
    assert done.returncode == 0, done.stderr
    broken = run_app("train", "experiment=fig5a/clr_3.0", "scale=smoke", "seed=1")
    assert broken.returncode == 0, broken.stderr
    assert "W&B failed (ImportError" in broken.stdout
    assert read_info(tmp_path / "multirun_outputs/smoke/fig5a/clr_3.0/seed1")["status"] == "finished"


def test_offline_tracking_is_one_wandb_run_a_job_with_the_same_rows(run_app, tmp_path):
    done = run_app("train", "-m", "experiment=fig5a/clr_3.0", "seed=0,1", "scale=smoke", "tracking=offline")
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        folder = tmp_path / f"multirun_outputs/smoke/fig5a/clr_3.0/seed{seed}"
        (mirrored,) = folder.glob("wandb/offline-run-*/*.wandb")
        rows, config = wandb_contents(mirrored)
        recorded = [{k: v for k, v in row.items() if v is not None} for row in read_history(folder)]
        assert [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows] == recorded
        assert config["seed"] == seed
        assert config["curve"] == "fig5a/clr_3.0"


def wandb_contents(path):
    """History rows and configuration of an offline W&B file, by wandb's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    rows = [r["history"]["item"] for r in records if r["type"] == "history"]
    return rows, next(r["run"]["config"]["update"] for r in records if r["type"] == "run")


def test_the_schema_knows_every_tracking_mode():
    assert {mode.value for mode in Mode} == {p.stem for p in CONF.glob("tracking/*.yaml")}
