"""What ``repro.sweeps._compat`` relies on still exists and behaves as expected."""

import dataclasses
import inspect
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing import popen_forkserver, spawn
from pathlib import Path
from types import ModuleType

import pytest
from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import OmegaConf

from repro.config.errors import ReproError
from repro.sweeps import _compat, task
from repro.sweeps.sweeper import Sweeper


def test_hydra_runs_a_job_with_its_callbacks_alone():
    context = _compat.job_context(OmegaConf.create({"hydra": {"callbacks": {}}}))
    assert context.config_loader is None
    assert list(inspect.signature(Callbacks).parameters) == ["config"]
    assert [field.name for field in dataclasses.fields(HydraContext)] == ["config_loader", "callbacks"]
    for hook in ("on_job_start", "on_job_end"):
        assert callable(getattr(context.callbacks, hook))


def test_a_return_of_hydra_holds_its_error():
    error = ValueError("no number")
    job_return = _compat.failed_return(["seed=1"], error)
    assert job_return.status is JobStatus.FAILED
    assert job_return.overrides == ["seed=1"]
    assert _compat.error_of(job_return) is error
    completed = JobReturn(["seed=1"], status=JobStatus.COMPLETED)
    completed.return_value = 3
    assert _compat.error_of(completed) is None


def test_hydra_takes_the_version_of_another_process(monkeypatch):
    monkeypatch.setattr(version.VersionBase.instance(), "version_base", None)
    base = version._get_version("1.3")
    _compat.set_version_base(base)
    assert _compat.version_base() == base


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to see it in")
def test_the_fork_server_is_started_with_signals_blocked():
    code = """
import signal
from multiprocessing import forkserver
from pathlib import Path
from repro.sweeps import _compat
_compat.start_fork_server(blocked=[signal.SIGINT, signal.SIGTERM])
print(Path(f"/proc/{forkserver._forkserver._forkserver_pid}/status").read_text().partition("SigBlk:")[2].split()[0])
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    blocked, ours = done.stdout.splitlines()
    assert int(blocked, 16) == sum(1 << (number - 1) for number in (signal.SIGINT, signal.SIGTERM))
    assert ours == "set()"


def test_a_process_is_started_without_the_apps_module(monkeypatch):
    main = ModuleType("__main__")
    main.__file__ = os.path.abspath("train.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    named = {"init_main_from_name", "init_main_from_path"}
    assert named & set(spawn.get_preparation_data("a name"))
    with _compat.without_main():
        assert not named & set(spawn.get_preparation_data("a name"))
    assert sys.modules["__main__"] is main


def test_sockets_stay_out_of_a_temporary_folder_whose_path_is_too_long(tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 80)
    folder.mkdir()
    code = f"""if True:
        import tempfile
        from multiprocessing import forkserver
        from repro.sweeps import _compat
        _compat.SHORT = ["/nowhere", {str(tmp_path)!r}]
        _compat.start_fork_server(blocked=[])
        print(forkserver._forkserver._forkserver_address, tempfile.gettempdir())
        _compat.SHORT = []
        _compat.start_fork_server(blocked=[])
    """
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    address, others = done.stdout.split()
    assert Path(address).parents[1] == tmp_path
    assert others == str(folder)
    monkeypatch.delitem(multiprocessing.current_process()._config, "tempdir", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(_compat, "SHORT", [])
    with pytest.raises(ReproError, match="^TMPDIR=.*: longer than 70 bytes, the limit for sockets"):
        _compat.start_fork_server(blocked=[])


def test_a_process_whose_server_died_has_its_exit_code():
    read, write = os.pipe()
    os.close(write)
    process = object.__new__(popen_forkserver.Popen)
    process.returncode, process.sentinel = None, read
    assert process.poll(flag=0) == _compat.ORPHANED
    os.close(read)


def test_another_apps_sweeper_is_made_inside_an_app(composed):
    plugin = _compat.instantiate_sweeper("train", task.train, ["hydra.mode=MULTIRUN", "scale=smoke", "seed=3"])
    assert isinstance(plugin.sweeper, Sweeper)
    job = plugin.sweeper.composer.job(["scale=smoke", "seed=3"])
    assert (job.config.seed, job.config.scale.name) == (3, "smoke")
