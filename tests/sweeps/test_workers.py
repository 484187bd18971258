"""A sweep trains several runs at once: the same results, and a killed run fails alone."""

import errno
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from io import StringIO
from multiprocessing import heap
from pathlib import Path

import pytest
import torch
from hydra.core.utils import JobStatus
from rich.console import Console
from test_figures import write_run
from test_resume import are_equal

from repro import records
from repro.config.errors import ReproError
from repro.records import lock, read_history, read_info
from repro.sweeps import machine, progress, states, workers
from repro.sweeps.jobs import QUIET, Job
from repro.sweeps.machine import Plan, plan
from repro.training import checkpoints, devices

SMOKE = ("scale=smoke", "tracking=disabled")
ENDLESS = [
    "experiment=fig8b/tbs1024",
    "scale=smoke",
    "tracking=disabled",
    "iterations=500000000",
    "scale.tests=100000",
]
HOME = "smoke/fig8b/tbs1024/iterations=500000000,scale.tests=100000"


@pytest.fixture
def endless(tmp_path, request):
    """A sweep of two runs that never end, both under way, or of more that wait: its process, their folders."""
    seeds = range(getattr(request, "param", 2))
    said = f"seed={','.join(map(str, seeds))}"
    command = [sys.executable, "-m", "repro.train", "-m", *ENDLESS, said, "workers=2", "threads=1", "output=out"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    folders = [tmp_path / "out" / HOME / f"seed{k}" for k in seeds]
    until(lambda: all(len(read_history(folder)) >= 2 for folder in folders[:2]))
    yield process, folders
    if process.poll() is None:
        process.kill()
    process.communicate()


def until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_how_many_run_at_once_and_in_which_order_changes_no_bit(run_app, tmp_path):
    sweep = ("-m", "experiment=fig5a/clr_3.0,fig8b/tbs1024", *SMOKE)
    for output, options in {"one": ("seed=0,1", "workers=1"), "two": ("seed=1,0", "workers=2")}.items():
        done = run_app("train", *sweep, f"output={output}", *options)
        assert done.returncode == 0, done.stderr
    folders = [p.parent.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("run.json")]
    assert len(folders) == 4
    for folder in folders:
        assert are_equal(tmp_path / "one" / folder, tmp_path / "two" / folder)
        info = read_info(tmp_path / "two" / folder)
        assert info["environment"]["threads"] == 1
        assert info["config"]["threads"] is None
        log = (tmp_path / "two" / folder / "train.log").read_text()
        assert log.count("iterations of") == 1
    assert len({read_info(tmp_path / "two" / folder)["pid"] for folder in folders}) == 4


def test_a_process_that_is_killed_is_one_failed_run(endless, run_app, tmp_path):
    process, (killed, other) = endless
    os.kill(read_info(killed)["pid"], signal.SIGKILL)
    until(lambda: states.describe_run(killed)["state"] == "failed")
    assert "killed by signal 9" in read_info(killed)["reason"]
    assert states.describe_run(other)["state"] == "running"
    rows = len(read_history(other))
    until(lambda: len(read_history(other)) > rows)
    os.kill(read_info(other)["pid"], signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "2 of 2 runs failed:" in errors
    assert f"{HOME}/seed0: its process was killed by signal 9, as the system does when memory runs out" in errors
    assert f"{HOME}/seed1: interrupted by signal 15; run the same command again to resume" in errors
    assert "Traceback" not in errors


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to find the server in")
@pytest.mark.parametrize("endless", [3], indirect=True)
def test_a_server_that_is_killed_fails_the_runs_in_progress_in_a_line_each(endless):
    """The run that waits is forked from a new server."""
    process, (*killed, last) = endless
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (server,) = [int(pid) for pid in children if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(server, signal.SIGKILL)
    until(lambda: [read_info(folder)["status"] for folder in killed] == ["failed", "failed"])
    until(lambda: len(read_history(last)) >= 2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert [read_info(folder)["reason"] for folder in killed] == [workers.SERVER_DIED] * 2
    assert f"2 of 3 runs failed:\n  out/{HOME}/seed0: {workers.SERVER_DIED}\n" in errors
    assert read_info(last)["status"] == "interrupted"  # by its checkpoint: the new server blocks the signal too
    assert len(checkpoints.find(last)) == 1


@pytest.mark.parametrize("error", [EOFError("unexpected EOF"), BrokenPipeError()])
@pytest.mark.parametrize("times", [1, 2])
def test_a_server_that_dies_as_it_is_asked_for_a_run_is_replaced_and_if_that_dies_too_fails_that_one(
    composed, resolved, tmp_path, monkeypatch, error, times
):
    """Killed a moment ago it is not known to be dead yet: the run that waits must not pay for it."""
    start, asked = multiprocessing.get_context("forkserver").Process.start, []

    def dies(process):
        asked.append(process)
        if len(asked) <= times:
            raise error
        start(process)

    common = ("experiment=fig5a/clr_3.0", *SMOKE, f"output={tmp_path}", QUIET)
    folders = [tmp_path / f"smoke/fig5a/clr_3.0/seed{k}" for k in range(2)]
    runs = [(resolved(*common, f"seed={k}"), composed(*common, f"seed={k}")) for k in range(2)]
    jobs = [Job([], run, folder, [], made) for (run, made), folder in zip(runs, folders, strict=True)]
    monkeypatch.setattr(multiprocessing.get_context("forkserver").Process, "start", dies)
    returns = workers.launch(jobs, Plan(1, 1, []))
    first = JobStatus.COMPLETED if times == 1 else JobStatus.FAILED
    assert [r.status for r in returns] == [first, JobStatus.COMPLETED]
    assert read_info(folders[0]).get("reason") == (None if times == 1 else workers.SERVER_DIED)
    assert read_info(folders[1])["status"] == "finished"


@pytest.mark.parametrize(
    ("number", "group", "code"),
    [
        (signal.SIGINT, True, 130),  # as a terminal sends it
        (signal.SIGINT, False, 130),
        (signal.SIGTERM, False, 143),
        (signal.SIGTERM, True, 143),
        (signal.SIGUSR2, False, 140),
    ],
)
def test_a_signal_ends_every_run_with_a_checkpoint(endless, number, group, code):
    process, folders = endless
    (os.killpg if group else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert errors.splitlines()[-1] == "interrupted; run the same command again to resume"
    assert "Traceback" not in errors
    for folder in folders:
        assert read_info(folder)["status"] == "interrupted"
        assert len(checkpoints.find(folder)) == 1
        assert not (folder / lock.LOCK).exists()


def test_the_second_ctrl_c_ends_every_run_at_once(endless):
    process, folders = endless
    pids = [read_info(folder)["pid"] for folder in folders]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # neither can write a checkpoint, or hear anything
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    until(lambda: all(lock.holder(folder) is None for folder in folders), 10)


def test_no_run_outlives_the_sweep(endless):
    process, folders = endless
    process.kill()
    until(lambda: all(lock.holder(folder) is None for folder in folders), 10)
    assert [states.describe_run(folder)["state"] for folder in folders] == ["stopped", "stopped"]


def test_a_file_in_the_way_is_one_line_and_fails_its_own_run(run_app, tmp_path):
    folder = tmp_path / "out/smoke/fig5a/clr_3.0/seed0"
    (folder / "weights.pt").mkdir(parents=True)
    done = run_app("train", "-m", "experiment=fig5a/clr_3.0", "seed=0,1", "output=out", *SMOKE)
    assert done.returncode == 1
    assert "1 of 2 runs failed:" in done.stderr
    assert "weights.pt: Is a directory" in done.stderr
    assert "Traceback" not in done.stderr
    assert read_info(folder.with_name("seed1"))["status"] == "finished"


def test_every_gpu_has_its_run(resolved, monkeypatch):
    run = resolved("experiment=fig5a/clr_3.0", *SMOKE)
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "gpus", lambda device: ["0", "1"])
    assert plan(run, 16) == Plan(2, 4, ["0", "1"], 8)
    assert plan(run, 16).within(1e6).workers == 2  # of main memory they take little
    assert plan(run, 1).workers == 1
    monkeypatch.setattr(machine, "gpus", lambda device: [""])
    assert plan(run, 16) == Plan(1, 8, [""], 8)
    run.workers = 6
    assert plan(run, 16).workers == 6
    assert plan(run, 3).workers == 3


def test_every_core_has_its_run(resolved, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    run = resolved("experiment=fig5a/clr_3.0", *SMOKE, "device=cpu")
    assert plan(run, 16) == Plan(8, 1, [], 8)
    assert plan(run, 3) == Plan(3, 1, [], 8)
    run.threads = 3
    assert plan(run, 16) == Plan(2, 3, [], 8)
    run.threads = 100
    assert plan(run, 16).workers == 1
    run.threads, run.workers = None, 20
    assert plan(run, 16) == Plan(16, 1, [], 8)


def test_no_more_runs_at_once_than_memory_holds(monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda: 10_000.0)
    assert Plan(8, 1, []).within(3_000).workers == 3
    assert Plan(8, 1, []).within(100_000).workers == 1
    assert Plan(8, 1, ["0"]).within(100_000).workers == 8  # a GPU whose memory is unknown
    monkeypatch.setattr(machine, "free_memory", lambda: None)
    assert Plan(8, 1, []).within(100_000).workers == 8


@pytest.fixture
def torch_answers(monkeypatch, tmp_path):
    """A function: what the process prints that asks torch for its GPUs; a driver's device file is there."""
    monkeypatch.setattr(devices, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia0").touch()

    def answer(*problems, unusable=None, output=None, errors=""):
        text = json.dumps([unusable, problems]) if output is None else output
        done = subprocess.CompletedProcess([], 0, stdout=text, stderr=errors)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)

    return answer


def test_the_gpus_of_a_device(monkeypatch, tmp_path, torch_answers):
    """Torch, which takes seconds to import, is asked only if a driver has left a device."""
    assert machine.gpus("cpu") == []
    assert machine.gpus("cuda:1") == machine.gpus("mps") == [""]
    torch_answers(None, None)
    assert machine.gpus("auto") == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8f")
    assert machine.gpus("cuda") == ["3", "GPU-8f"]
    (tmp_path / "nvidia0").unlink()
    assert machine.gpus("auto") == []


def test_a_gpu_that_does_not_answer_is_left_out_and_named(torch_answers, capsys):
    torch_answers(None, "CUDA error: out of order", None)
    assert machine.gpus("auto") == ["0", "2"]
    assert capsys.readouterr().err == "note: GPU 1 does not respond (CUDA error: out of order) and is skipped\n"


def test_no_plan_for_a_cpu_where_every_run_would_choose_the_gpu(torch_answers, monkeypatch):
    torch_answers("CUDA error: unknown")
    with pytest.raises(
        ReproError, match=r"^device=auto: GPU 0 does not respond \(CUDA error: unknown\); device=cpu"
    ):
        machine.gpus("auto")
    torch_answers(output="", errors="Traceback\nMemoryError: no room")
    with pytest.raises(
        ReproError, match=r"does not respond \(.*MemoryError: no room\); device=cpu trains without"
    ):
        machine.gpus("auto")
    torch_answers()
    with pytest.raises(ReproError, match="device=cuda: torch finds no GPU"):
        machine.gpus("cuda")

    def silent(*_, timeout, **__):
        raise subprocess.TimeoutExpired([], timeout)

    monkeypatch.setattr(subprocess, "run", silent)
    with pytest.raises(ReproError, match=r"device=auto: the GPU does not respond \(timeout\)"):
        machine.gpus("auto")


def test_a_driver_that_torch_cannot_use_is_a_note(torch_answers, capsys):
    torch_answers(unusable="device=auto is the CPU: torch cannot use the GPU of /dev/nvidia0 (too old)")
    assert machine.gpus("auto") == []
    assert capsys.readouterr().err.startswith("note: device=auto is the CPU: torch cannot use the GPU")


def test_what_the_asking_process_prints(monkeypatch, tmp_path, capsys):
    def free(index):
        if index == 1:
            raise RuntimeError("CUDA error: out of order\nand more")

    monkeypatch.setattr(devices, "DEVICES", tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", free)
    devices.print_gpus()
    assert json.loads(capsys.readouterr().out) == [None, [None, "CUDA error: out of order", None]]


def test_a_run_sees_the_gpu_of_its_worker_alone(composed, resolved, tmp_path):
    """Seen from inside: the format of its log asks the environment of its process."""
    seen = "hydra.job_logging.formatters.simple.format='%(message)s on ${oc.env:CUDA_VISIBLE_DEVICES,all}'"
    resolved_once = "tracking.project='${oc.env:CUDA_VISIBLE_DEVICES,all}'"
    common = ("experiment=fig5a/clr_3.0", *SMOKE, "device=cpu", f"output={tmp_path}", QUIET, seen, resolved_once)
    folders = [tmp_path / f"smoke/fig5a/clr_3.0/seed{k}" for k in range(2)]
    runs = [(resolved(*common, f"seed={k}"), composed(*common, f"seed={k}")) for k in range(2)]
    jobs = [Job([], run, folder, [], made) for (run, made), folder in zip(runs, folders, strict=True)]
    returns = workers.launch(jobs, Plan(2, 1, ["4", "7"]))
    assert [r.status for r in returns] == [JobStatus.COMPLETED] * 2
    logs = [(folder / "train.log").read_text() for folder in folders]
    projects = [read_info(folder)["config"]["tracking"]["project"] for folder in folders]
    assert projects == [job.config.tracking.project for job in jobs] != ["4", "7"]
    assert [(" on 4\n" in log, " on 7\n" in log) for log in logs] == [(True, False), (False, True)]


@pytest.mark.parametrize(("file", "hidden"), [(None, True), ("nvidia0", False)])
def test_a_run_that_the_plan_gives_no_gpu_finds_none(composed, resolved, tmp_path, monkeypatch, file, hidden):
    """Without a driver's device file torch is not asked; should it find a GPU all the same, no run may take it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "DEVICES", tmp_path / "dev")
    if file:
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev" / file).touch()
    seen = "hydra.job_logging.formatters.simple.format='%(message)s on <${oc.env:CUDA_VISIBLE_DEVICES,all}>'"
    common = ("experiment=fig5a/clr_3.0", *SMOKE, "device=auto", f"output={tmp_path}", QUIET, seen)
    folder = tmp_path / "smoke/fig5a/clr_3.0/seed0"
    workers.launch([Job([], resolved(*common), folder, [], composed(*common))], Plan(1, 1, []))
    log = (folder / "train.log").read_text()
    assert (" on <>\n" in log, " on <all>\n" in log) == (hidden, not hidden)


def test_runs_share_their_flag_without_shared_memory(monkeypatch):
    """A /dev/shm that cannot be written is no reason to fail."""

    def read_only(*args):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(heap, "Arena", read_only)
    context = multiprocessing.get_context("fork")
    flag = workers._Flag(*context.Pipe(duplex=False))
    assert flag.value == 0
    for _ in range(2):
        process = context.Process(target=setattr, args=(flag, "value", 1))
        process.start()
        process.join()
        assert flag.value == 1


def test_a_process_that_died_ends_its_record(tmp_path):
    write_run(tmp_path / "running", [(0, 0.1)], status="running")
    write_run(tmp_path / "finished", [(0, 0.1)], status="finished")
    for name in ("running", "finished", "missing"):
        records.mark_failed(tmp_path / name, "killed")
    assert (read_info(tmp_path / "running")["status"], read_info(tmp_path / "running")["reason"]) == (
        "failed",
        "killed",
    )
    assert read_info(tmp_path / "finished")["status"] == "finished"
    assert not (tmp_path / "missing").exists()
    assert [p.name for p in (tmp_path / "running").glob(".*")] == []


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="glibc")
def test_the_allocator_keeps_what_is_freed_unless_the_environment_says_otherwise():
    code = "from repro.training import memory; print(memory.keep_freed_memory())"

    def kept(**environment):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC"))} | environment
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout.strip()

    assert kept() == str(platform.libc_ver()[0] == "glibc")
    assert kept(MALLOC_TRIM_THRESHOLD_="1000000") == "False"
    assert kept(GLIBC_TUNABLES="glibc.malloc.mmap_max=3") == "False"


def test_the_end_of_a_sweep_says_which_runs_fell_back(tmp_path, resolved, capsys):
    run, reason = resolved("experiment=fig5a/clr_3.0", *SMOKE), "engine.cuda_graph does not work here (no [room])"
    with progress.Progress([(tmp_path / f"seed{k}", run) for k in range(3)]):
        for k in range(3):
            fallback = {} if k == 1 else {"fallback": reason, "step": "compiled"}
            write_run(tmp_path / f"seed{k}", [(0, 0.1)], status="finished", **fallback)
    assert capsys.readouterr().err.splitlines()[-1] == f"note: 2 of 3 runs: {reason}; their step was 'compiled'"


def test_the_end_of_a_sweep_says_what_became_of_wandb(tmp_path, resolved, capsys):
    run = resolved("experiment=fig5a/clr_3.0", *SMOKE)

    def said(**states):
        with progress.Progress([(tmp_path / name, run) for name in states]):
            for name, mirror in states.items():
                write_run(tmp_path / name, [(0, 0.1)], status="finished", **({"wandb": mirror} if mirror else {}))
        return capsys.readouterr().err.splitlines()[-1]

    done = {"mode": "online", "state": "mirrored", "url": "https://wandb.ai/me/mine/runs/x"}
    failed = {"mode": "online", "state": "failed", "reason": "no API key"}
    offline = {"mode": "offline", "state": "offline"}
    assert said(a=done, b=done) == "W&B: 2 of 2 runs mirrored: https://wandb.ai/me/mine"
    assert said(c=done, d=failed, e=failed) == (
        "W&B: 1 of 3 runs mirrored; 2 failed (no API key); upload later with python -m repro.tracking upload "
        "multirun_outputs"
    )
    assert "W&B" not in said(f=offline, g=None)


@pytest.mark.parametrize("width", [60, 120])
def test_every_run_in_progress_is_shown(tmp_path, resolved, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    run = resolved("experiment=fig5a/clr_3.0", *SMOKE)
    display = progress.Progress([(tmp_path / f"seed{k}", run) for k in range(3)])
    display.earlier = dict.fromkeys(display.unfinished)
    for k in (0, 1):
        write_run(tmp_path / f"seed{k}", [(0, 0.1), (5, 0.25)], status="running")
    display._update()
    screen = Console(width=width, file=StringIO())
    screen.print(display.bar.get_renderable())
    lines = screen.file.getvalue().splitlines()
    assert len(lines) == 3
    assert all(len(line) <= width for line in lines)
    assert all("5/10" in line and "25.0%" in line and "50 %" in line for line in lines[1:])
