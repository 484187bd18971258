"""How every command ends: one line and an exit code, whatever its surroundings do to it."""

import ast
import errno
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hydra.errors import ConfigCompositionException
from test_figures import write_run

from repro import command
from repro.config.errors import ReproError
from repro.training.interrupts import Interrupted

PACKAGE = Path(command.__file__).parent
COMMANDS = ["train", "figures", "report", "search", "status", "evaluate", "tracking", "bench"]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def end(monkeypatch, capfd):
    """A function: what a command does -> its exit code and what it says on standard error."""

    def run(main):
        module = ModuleType("some_command")
        module.main = main
        monkeypatch.setitem(sys.modules, "some_command", module)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")
        monkeypatch.setattr(logging, "raiseExceptions", True)
        with pytest.raises(SystemExit) as exit_:
            command.run("some_command")
        return exit_.value.code, capfd.readouterr().err

    return run


def raising(error, cause=None):
    def main():
        raise error from cause

    return main


def full():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("error", "cause", "line"),
    [
        (ReproError("lr=x: wrong"), None, "lr=x: wrong"),
        (ConfigCompositionException("Could not find\n'x'"), None, "Could not find 'x'"),
        (full(), None, "the disk is full; make room, then run the same command again"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/run.json"), None,
         "runs/run.json: Permission denied; make it readable and writable, then run the same command again"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.yaml"), None,
         "x.yaml: No such file or directory"),
        # logging's own, of a train.log that cannot be opened
        (ValueError("Unable to configure handler 'file'"), IsADirectoryError(errno.EISDIR, "Is a directory", "t.log"),
         "t.log: Is a directory"),
        (UnicodeEncodeError("ascii", "runs/ü", 5, 6, "ordinal not in range"), None,
         "'\\xfc' is not in this locale's encoding; set LC_ALL=C.UTF-8"),
        # a configuration file that an editor saved as Latin-1
        (UnicodeDecodeError("utf-8", b"lr: 1\n# f\xfcr\nseed: 0\n", 9, 10, "invalid start byte"), None,
         "'# f\xfcr': the file with this line is not UTF-8; save it as UTF-8"),
    ],
)  # fmt: skip
def test_what_the_user_can_mend_is_one_line(end, error, cause, line):
    assert end(raising(error, cause)) == (f"error: {line}", "")


def test_a_bug_keeps_its_traceback(end):
    with pytest.raises(ZeroDivisionError):
        end(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (Interrupted(signal.SIGTERM), 143), (Interrupted(signal.SIGINT), 130)],
)
def test_a_signal_is_a_line_and_its_number(end, error, code):
    assert end(raising(error)) == (code, "interrupted; run the same command again\n")


def test_what_has_been_told_keeps_its_code(end):
    assert end(lambda: sys.exit(1)) == (1, "")
    assert end(lambda: None) == end(lambda: sys.exit()) == (0, "")


def test_ctrl_c_during_the_imports_is_one_line(run_app, tmp_path):
    (tmp_path / "omegaconf.py").write_text("raise KeyboardInterrupt")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', PACKAGE.parent)}"
    for name in COMMANDS:
        done = run_app(name, PYTHONPATH=path)
        line = f"interrupted; run the same command again{' to resume' * (name in ('train', 'search'))}\n"
        assert (done.returncode, done.stderr) == (130, line), name


def test_every_console_script_is_a_command():
    names = [name.removeprefix("repro-") for name in command.SCRIPTS]
    assert sorted(names) == sorted(COMMANDS)
    for name, module in command.SCRIPTS.items():
        text = (PACKAGE.parent / "pyproject.toml").read_text()
        assert f'{name} = "repro.command:main"' in text
        source = (PACKAGE.parent / module.replace(".", "/")).with_suffix(".py")
        assert "\ndef main() -> None:" in source.read_text()


def into_closed_pipe(tmp_path, *arguments):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        return subprocess.run(
            [sys.executable, "-m", *arguments], cwd=tmp_path, stdout=stdout, stderr=subprocess.PIPE, text=True
        )


@pytest.mark.parametrize("arguments", [["repro.status", "--json"], ["repro.status"], ["repro.train", "--help"]])
def test_output_that_nobody_reads_ends_a_command_without_a_word(tmp_path, arguments):
    write_run(tmp_path / "multirun_outputs/demo/fig5b/wd_1e-3/seed0", [(0, 0.1)])
    done = into_closed_pipe(tmp_path, *arguments)
    assert (done.returncode, done.stderr) == (command.CLOSED_PIPE, "")


def test_a_run_whose_output_nobody_reads_trains_on(tmp_path):
    arguments = ["experiment=fig5a/clr_3.0", "scale=smoke", "tracking=disabled", "threads=1"]
    done = into_closed_pipe(tmp_path, "repro.train", *arguments)
    assert done.stderr == ""
    folder = tmp_path / "multirun_outputs/smoke/fig5a/clr_3.0/seed0"
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert "iteration 10/10" in (folder / "train.log").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is full")
def test_output_that_finds_no_room_is_one_line(tmp_path):
    write_run(tmp_path / "multirun_outputs/demo/fig5b/wd_1e-3/seed0", [(0, 0.1)])
    with open("/dev/full", "w") as full_disk:
        done = subprocess.run(
            [sys.executable, "-m", "repro.status"],
            cwd=tmp_path,
            stdout=full_disk,
            stderr=subprocess.PIPE,
            text=True,
        )
    line = "error: the disk is full; make room, then run the same command again\n"
    assert (done.returncode, done.stderr) == (1, line)


def test_a_locale_without_the_characters_has_others_in_their_place(run_app, tmp_path):
    for seed in range(2):
        write_run(tmp_path / f"multirun_outputs/demo/fig5b/wd_1e-3/seed{seed}", [(0, 0.1), (4, 0.2 + seed / 10)])
    done = run_app("figures", "figure=fig5b", "scale=demo", "formats=[svg]", **ASCII)
    assert done.returncode == 0, done.stderr
    assert "17.50 +- 3.54" in done.stdout
    assert "±" in (tmp_path / "paper_figures/demo/fig5b.md").read_text(encoding="utf-8")
    drawn = run_app("status", **ASCII)
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.isascii()
    named = run_app("train", "output=ü", **ASCII)
    assert (named.returncode, len(named.stderr.splitlines())) == (1, 1)
    assert "is not in this locale's encoding; set LC_ALL=C.UTF-8" in named.stderr


def test_every_text_file_is_opened_in_a_named_encoding():
    """The locale's would be another on another machine."""
    places = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            keywords = {keyword.arg for keyword in node.keywords}
            modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            # os.open and PIL's have no mode
            opens = name in ("read_text", "write_text", "fdopen") or (
                name == "open" and isinstance(node.func, ast.Name)
            )
            text = opens and not any("b" in mode for mode in modes)
            if (text or keywords & {"text", "universal_newlines"}) and "encoding" not in keywords:
                places.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not places


def test_help_lists_the_choices_that_the_command_takes(run_app, tmp_path):
    (tmp_path / "mine/experiment/fig0").mkdir(parents=True)
    (tmp_path / "mine/experiment/fig0/a.yaml").touch()
    lines = run_app("train", "--config-dir", "mine", "--help").stdout.splitlines()
    groups = {line.partition(":")[0]: line for line in lines if ": " in line and not line.startswith(" ")}
    assert groups["sweep"].startswith("sweep: all, fig0, fig10a, ")
    assert groups["experiment/fig0"] == "experiment/fig0: a"
    assert not {"figure", "table", "method"} & set(groups)
    assert "method: batch_size, dropout, lr_range" in run_app("search", "--help").stdout
    assert "figure: all, fig10a" in run_app("figures", "--help").stdout
