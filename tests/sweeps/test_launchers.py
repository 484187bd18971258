import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from repro.config.errors import ReproError, one_line
from repro.records import queued
from repro.sweeps.launcher import OnThisMachine
from repro.training.interrupts import Interrupted, interruptible

# Enough of Slurm for an array of two jobs: what submitit calls, and a way to preempt a job and to queue it again.
TOOLS = {
    "sbatch": """
cp "${!#}" $SLURM_STAND_IN/script
for k in 0 1; do start $k; done
echo Submitted batch job 7
""",
    "start": """
export SLURM_JOB_ID=$((8 + $1)) SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$1 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1
export SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_JOB_NODELIST=here
setsid bash -c "bash $SLURM_STAND_IN/script && touch $SLURM_STAND_IN/done$1" </dev/null >>$SLURM_STAND_IN/log$1 2>&1 &
""",
    "srun": """
echo $$ > $SLURM_STAND_IN/pid$SLURM_ARRAY_TASK_ID
while [[ "$(basename "$1")" != python* ]]; do shift; done
exec "$@"
""",
    "scontrol": """
[ "$1" = requeue ] || exit 0
echo "$@" >> $SLURM_STAND_IN/requeued
setsid bash -c "sleep 1; start ${2#*_}" </dev/null >/dev/null 2>&1 &
""",
    "squeue": """
for k in 0 1; do [ -e $SLURM_STAND_IN/done$k ] || echo "7_$k RUNNING"; done
""",
}


@pytest.fixture
def slurm(tmp_path):
    """The folder of a stand-in for Slurm, and the environment in which it is found."""
    pytest.importorskip("submitit")
    folder = tmp_path / "slurm"
    (folder / "bin").mkdir(parents=True)
    for name, script in TOOLS.items():
        (folder / "bin" / name).write_text("#!/bin/bash" + script)
        (folder / "bin" / name).chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "SLURM_", "SUBMITIT_"))}
    return folder, {
        **kept,
        "SLURM_STAND_IN": str(folder),
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }


def sweep(tmp_path, *arguments):
    command = [sys.executable, "-m", "repro.train", "-m", "hydra/launcher=slurm", "experiment=fig8b/tbs512"]
    return [*command, "seed=0,1", "threads=1", "tracking=disabled", f"output={tmp_path / 'runs'}", *arguments]


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in for Slurm is made of bash and setsid")
def test_a_job_of_slurm_that_is_preempted_is_queued_again_and_goes_on(slurm, tmp_path):
    folder, environment = slurm
    command = sweep(tmp_path, "scale=demo", "iterations=20_000", "hydra.launcher.partition=short")
    launched = subprocess.Popen(
        command, env=environment, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        rows, deadline = 0, time.monotonic() + 120
        while rows < 3 and time.monotonic() < deadline and launched.poll() is None:
            rows = sum(len(path.read_text().splitlines()) for path in tmp_path.glob("runs/**/seed0/history.jsonl"))
            time.sleep(0.05)
        assert rows >= 3
        os.kill(int((folder / "pid0").read_text()), signal.SIGUSR2)
        output, _ = launched.communicate(timeout=240)
    finally:
        launched.kill()
    assert launched.returncode == 0, output + "".join(path.read_text() for path in folder.glob("log*"))
    assert (folder / "requeued").read_text() == "requeue 7_0\n"
    runs = sorted(path.parent for path in tmp_path.glob("runs/demo/**/run.json"))
    assert [run.name for run in runs] == ["seed0", "seed1"]
    for run in runs:
        info = json.loads((run / "run.json").read_text())
        iterations = [json.loads(line)["iteration"] for line in (run / "history.jsonl").read_text().splitlines()]
        assert info["status"] == "finished"
        assert iterations == sorted(set(iterations))
    assert "resuming after iteration" in (runs[0] / "train.log").read_text()
    assert "resuming after iteration" not in (runs[1] / "train.log").read_text()
    script = (folder / "script").read_text()
    for option in ("--gpus-per-node=1", "--partition=short", "--signal=USR2@120"):
        assert f"#SBATCH {option}" in script


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in for Slurm is made of bash and setsid")
def test_a_launcher_that_gives_up_is_one_line(slurm, tmp_path):
    folder, environment = slurm
    (folder / "bin" / "sbatch").write_text("#!/bin/bash\necho 'no such partition' >&2\nexit 1\n")
    done = subprocess.run(
        sweep(tmp_path, "scale=smoke"), env=environment, cwd=tmp_path, text=True, capture_output=True, timeout=120
    )
    assert done.returncode == 1
    assert (
        "error: none of the 2 runs could train: Slurm does not accept the jobs: no such partition\n" in done.stderr
    )
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in for Slurm is made of bash")
def test_what_slurm_refuses_leaves_the_runs_whose_jobs_live(slurm, tmp_path):
    folder, environment = slurm
    (folder / "bin/sbatch").write_text(
        "#!/bin/bash\necho -e 'a warning\nsbatch: error: invalid partition' >&2\nexit 1\n"
    )
    (folder / "bin/squeue").write_text(
        "#!/bin/bash\n[ -e $SLURM_STAND_IN/asked ] || echo '6_0 RUNNING'\ntouch $SLURM_STAND_IN/asked\n"
    )
    seed0 = tmp_path / "runs/smoke/fig8b/tbs512/seed0"
    queued.write(seed0, queued.Submitted(engine="slurm", id="6_0", log="its log"))
    done = subprocess.run(
        sweep(tmp_path, "scale=smoke"), env=environment, cwd=tmp_path, text=True, capture_output=True, timeout=120
    )
    assert done.returncode == 1
    assert "1 of 2 runs have jobs that are queued or running; waiting for them: 6_0 RUNNING" in done.stdout
    assert "seed0: it has not started (Slurm job 6_0: no longer in the queue; log its log)" in done.stderr
    assert "seed1: Slurm does not accept the jobs: error: invalid partition\n" in done.stderr


def slurm_launcher(composed, **changed):
    pytest.importorskip("submitit")
    from repro.sweeps import slurm

    params = OmegaConf.to_container(composed("hydra/launcher=slurm").hydra.launcher, resolve=False)
    return slurm.Launcher({**params, "submitit_folder": "logs", **changed})


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("runs_per_job", 0, "1 or more"),
        ("runs_per_job", 1.5, "1 or more"),
        ("runs_per_job", None, "1 or more"),
        ("array_parallelism", None, "1 or more"),
        ("timeout_min", "4:00:00", "1 or more (minutes)"),
        ("gpus_per_node", "a100:2", "0 or more; with null, gres=gpu:a100:2 asks for a kind"),
    ],
)
def test_a_value_that_slurm_cannot_be_asked_for_is_one_line(composed, key, value, hint):
    with pytest.raises(ReproError) as error:
        slurm_launcher(composed, **{key: value})
    assert str(error.value) == f"hydra.launcher.{key}={value}: give a whole number, {hint}"


@pytest.mark.parametrize(
    ("changed", "gpus"),
    [
        ({}, 1),
        ({"runs_per_job": 4}, 0.25),
        ({"gpus_per_node": None, "gres": "gpu:4"}, 4),
        ({"gpus_per_node": None, "gres": "gpu:a100:2"}, 2),
        ({"gpus_per_node": None, "gres": "gpu:A100"}, 1),
        ({"gpus_per_node": None, "gres": "tmpdisk:50,gpu:1g.5gb:2"}, 2),
        ({"gpus_per_node": None, "gres": "tmpdisk:50"}, 0),
        ({"gpus_per_node": None, "gpus_per_task": 2}, 2),
        ({"gpus_per_node": None}, 0),
    ],
)
def test_the_gpus_of_a_run_are_counted(composed, changed, gpus):
    assert slurm_launcher(composed, **changed).gpus_per_run == gpus


def test_jobs_do_not_inherit_the_job_that_submits_them(monkeypatch):
    pytest.importorskip("submitit")
    from repro.sweeps import slurm

    variables = {"SLURM_MEM_PER_CPU": "500", "SLURM_CONF": "/etc/ours", "SUBMITIT_EXECUTOR": "slurm"}
    for key, value in variables.items():
        monkeypatch.setenv(key, value)

    def seen():
        with slurm._outside_a_job():
            return {key for key in variables if key in os.environ}

    assert seen() == {*variables}  # the user's own
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert seen() == {"SLURM_CONF"}
    assert os.environ["SLURM_MEM_PER_CPU"] == "500"


def ray_sweep(tmp_path, *arguments):
    command = [sys.executable, "-m", "repro.train", "-m", "hydra/launcher=ray", "experiment=fig8b/tbs512"]
    command += ["seed=0,1", "scale=smoke", "threads=1", "tracking=disabled", f"output={tmp_path}", *arguments]
    return subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=240)


def test_every_run_is_a_task_of_ray(tmp_path):
    pytest.importorskip("ray", reason="needs pip install -e '.[ray]'")
    done = ray_sweep(tmp_path, "hydra.launcher.ray.remote.num_gpus=0", "hydra.launcher.ray.remote.num_cpus=1")
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    runs = [json.loads(path.read_text()) for path in tmp_path.glob("smoke/**/run.json")]
    assert [run["status"] for run in runs] == ["finished", "finished"]


def test_a_run_on_ray_asks_for_a_gpu_and_is_tried_again(composed):
    remote = composed("hydra/launcher=ray").hydra.launcher.ray.remote
    assert remote.num_gpus == 1
    assert remote.max_retries > 0


def small(*arguments):
    common = ("experiment=fig8b/tbs512", "scale=smoke", "threads=1", "tracking=disabled", "output=out")
    return ("-m", *common, *arguments)


def processes(tmp_path):
    """The process that trained each run, by its seed; every run must have finished."""
    infos = [json.loads(path.read_text()) for path in tmp_path.glob("out/smoke/**/run.json")]
    assert {info["status"] for info in infos} == {"finished"}
    return {info["seed"]: info["pid"] for info in infos}


def test_hydras_own_launcher_trains_one_run_after_the_other_in_the_sweeps_process(run_app, tmp_path):
    done = run_app("train", *small("hydra/launcher=basic", "seed=0,1"))
    assert done.returncode == 0, done.stderr
    assert "[2/2]" in done.stderr
    pids = processes(tmp_path)
    assert pids[0] == pids[1]
    again = run_app("train", *small("hydra/launcher=basic", "seed=0,1", "force=true"))
    assert again.returncode == 0, again.stderr
    assert all((path.parent / "earlier-1").exists() for path in tmp_path.glob("out/smoke/**/seed?/run.json"))
    dry_run = run_app("train", *small("hydra/launcher=basic", "seed=range(4)"), "--dry-run")
    assert "one run after another (the launcher decides how many run at once)" in dry_run.stdout, dry_run.stderr


def test_another_sweeper_launches_by_overrides_in_processes_of_their_own(run_app, tmp_path):
    done = run_app("train", *small("hydra/sweeper=basic", "seed=0,1,2", "workers=2"))
    assert done.returncode == 0, done.stderr
    assert "[3/3]" in done.stderr
    assert len(set(processes(tmp_path).values())) == 3
    hydra = [path.read_text() for path in sorted(tmp_path.glob("out/smoke/**/.hydra/hydra.yaml"))]
    assert ["num: 0\n" in hydra[0], "num: 2\n" in hydra[2]] == [True, True]
    log = next(tmp_path.glob("out/smoke/**/seed0/train.log")).read_text()
    assert log.count("iterations of") == 1
    wrong = run_app("train", *small("hydra/sweeper=basic", "seed=0,1", "batch_size=512,-1"))
    assert wrong.returncode == 1
    assert "batch_size=-1 is not positive" in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1, wrong.stderr


def test_a_dry_run_says_what_a_sweep_would_be_on_a_cluster(slurm, tmp_path):
    _, environment = slurm
    command = [*sweep(tmp_path, "scale=smoke", "seed=range(6)", "hydra.launcher.runs_per_job=4"), "--dry-run"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "an array of 2 jobs of 4 runs, at most 2 at once, each with nodes=1, tasks_per_node=1," in said
    assert "gpus_per_node=1" in said
    assert "GPU-hours" in said
    assert "GB together" in said  # of the four of a job


def test_only_our_launcher_is_known_to_train_on_this_machine():
    known = {c.__name__ for c in Plugins.instance().discover(Launcher) if issubclass(c, OnThisMachine)}
    assert known == {"LocalLauncher"}


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_a_launcher_that_is_not_installed_is_one_line(tmp_path):
    done = ray_sweep(tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: hydra/launcher=ray: its plug-in is not installed; pip install -e '.[ray]'\n"


def test_a_launcher_whose_own_file_is_missing_is_one_line():
    error = ConfigCompositionException(
        "In 'hydra/launcher/slurm': Could not load 'hydra/launcher/submitit_slurm'."
    )
    assert one_line(error) == "hydra/launcher=slurm: its plug-in is not installed; pip install -e '.[slurm]'"
    absent = MissingConfigException("In 'hydra/config': Could not find 'hydra/launcher/joblib'", "x", [])
    assert one_line(absent) == "hydra/launcher=joblib: its plug-in is not installed; pip install -e '.[joblib]'"
    own = ConfigCompositionException("In 'hydra/launcher/ours': Could not load 'hydra/launcher/submitit_slurm'.")
    assert one_line(own) == (
        "hydra/launcher=ours: hydra/launcher/submitit_slurm is missing; "
        "install the Hydra launcher plug-in that provides it"
    )


def test_who_waited_for_sigusr2_before_hears_of_it_after_the_run():
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        with pytest.raises(Interrupted), interruptible() as stop:
            signal.raise_signal(signal.SIGUSR2)
            assert stop == [signal.SIGUSR2]
            assert heard == []
            raise Interrupted(stop[0])
        assert heard == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)
