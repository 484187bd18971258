"""A run's folder stays readable whatever happens, and says what it holds."""

import json
import shutil
import subprocess

import pytest
from omegaconf import OmegaConf
from on_disk import largest_file

from repro import records
from repro.config.errors import ReproError
from repro.records.files import find, write_whole
from repro.records.record import commit_of
from repro.sweeps import sweeper
from repro.sweeps.jobs import Job
from repro.sweeps.states import describe_run

ROW = {"iteration": 2, "lr": 0.1, "momentum": 0.9, "train_loss": 1.0, "test_loss": 1.5, "test_accuracy": 0.25}


@pytest.fixture
def run(resolved):
    return resolved("experiment=fig5a/clr_3.0", "scale=smoke")


def test_a_record_says_what_was_run_and_where(tmp_path, run):
    record = records.Record(tmp_path / "seed0", run, {"device": "cpu"})
    assert records.read_info(tmp_path / "seed0")["status"] == "running"
    record.append(ROW)
    record.append({**ROW, "iteration": 4, "train_loss": float("nan")})
    record.finish("finished", final_accuracy=0.25)
    info = records.read_info(tmp_path / "seed0")
    assert info["status"] == "finished"
    assert info["config"]["iterations"] == 10
    assert info["environment"] == {"device": "cpu"}
    assert info["wall_seconds"] >= 0
    assert info["versions"]["torch"]
    assert records.read_history(tmp_path / "seed0") == [ROW, {**ROW, "iteration": 4, "train_loss": None}]
    assert sorted(p.name for p in (tmp_path / "seed0").iterdir()) == ["history.jsonl", "run.json"]


def test_an_edit_of_ones_own_network_is_named_and_one_of_its_comments_is_not(
    tmp_path, resolved, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(tmp_path)
    code = "from torch import nn\n\ndef network(num_classes, channels):\n    return nn.Linear(1, num_classes)\n"
    (tmp_path / "own_edited.py").write_text(code)
    run = resolved(
        "experiment=fig5a/clr_3.0", "scale=smoke", "model=custom", "model.factory=own_edited:network",
        f"output={tmp_path}",
    )  # fmt: skip
    records.Record(tmp_path / "run", run, {}).finish("finished")
    info = records.read_info(tmp_path / "run")
    (tmp_path / "own_edited.py").write_text("# a comment\n" + code)
    assert records.edited(info, run) is None
    (tmp_path / "own_edited.py").write_text(code.replace("Linear(1", "Linear(2"))
    assert records.edited(info, run) == "the code of own_edited:network has changed since"
    sweeper.note_edits([Job([], run, tmp_path / "run", [], OmegaConf.create())])
    assert (
        capsys.readouterr().err == "note: the code of own_edited:network has changed since 1 of them was trained\n"
    )
    assert describe_run(tmp_path / "run", run)["reason"] == f"{records.edited(info, run)} it was trained"
    assert records.edited({**info, "code": []}, run) is None  # an earlier record


def test_a_reader_never_sees_half_a_row(tmp_path, run):
    record = records.Record(tmp_path, run, {})
    record.append(ROW)
    with open(tmp_path / "history.jsonl", "ab") as file:
        file.write(json.dumps(ROW).encode()[:20])
    assert records.read_history(tmp_path) == [ROW]
    assert records.last_row(tmp_path) == ROW


def test_a_broken_row_is_named_by_file_and_line(tmp_path, run):
    record = records.Record(tmp_path, run, {})
    record.append(ROW)
    for line in (b"garbage", b"3", b"[]", b"{}", b'{"iteration": "2"}', b'{"iteration": 2, "lr": []}', b"\xff"):
        (tmp_path / "history.jsonl").write_bytes(json.dumps(ROW).encode() + b"\n" + line + b"\n")
        with pytest.raises(ReproError, match=r"history\.jsonl:2: not a JSON row"):
            records.read_history(tmp_path)
        assert records.last_row(tmp_path) is None


def test_broken_run_json_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ReproError, match=r"run\.json: broken"):
        records.read_info(tmp_path)
    assert records.read_info(tmp_path / "nothing") is None
    assert records.read_info(tmp_path / "run.json/nothing") is None
    assert records.read_history(tmp_path / "nothing") == []
    (tmp_path / "folder/run.json").mkdir(parents=True)
    with pytest.raises(ReproError, match=r"run\.json: cannot be read: Is a directory"):
        records.read_info(tmp_path / "folder")


FOREIGN = {
    "a list": [],
    "a text": "run",
    "another tool's": {"name": "run", "status": "finished", "config": {"lr": 0.1}},
    "no status": {"status": None},
    "no scale": {"scale": "demo"},
    "iterations in words": {"iterations": "many"},
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=[*FOREIGN])
def test_another_tools_run_json_is_named(tmp_path, run, content):
    record = records.Record(tmp_path, run, {})
    assert records.read_info(tmp_path)["status"] == "running"
    if isinstance(content, dict) and "name" not in content:
        (key,) = content
        content = {**record.info, **content} if key == "status" else {
            **record.info, "config": {**record.info["config"], **content}}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(
        ReproError, match=r"run\.json: not a record of this suite; move it out of the folders of runs"
    ):
        records.read_info(tmp_path)


def test_a_record_of_another_version_is_another_run(tmp_path, run):
    record = records.Record(tmp_path, run, {})
    record.info["config"]["later"] = 1
    record.finish("finished")
    with pytest.raises(ReproError, match=r"holds a finished run of another configuration .its configuration is from "
                       r"another version of the suite .Key 'later'"):  # fmt: skip
        records.already_finished(tmp_path, run)


def test_a_finished_run_is_kept_and_another_is_refused(tmp_path, run, resolved):
    records.Record(tmp_path, run, {}).finish("finished")
    assert records.already_finished(tmp_path, run)
    other = resolved("experiment=fig5a/clr_3.0", "scale=smoke", "regularization.weight_decay=0.5", "seed=3")
    with pytest.raises(ReproError, match=r"weight_decay: 0.0001 there, 0.5 now; seed: 0 there, 3 now"):
        records.already_finished(tmp_path, other)


def test_force_moves_a_finished_run_aside(tmp_path, run):
    for attempt in (1, 2):
        record = records.Record(tmp_path, run, {})
        record.append({**ROW, "iteration": attempt})
        record.finish("finished")
        run.force = True
        assert not records.already_finished(tmp_path, run)
        assert records.read_info(tmp_path)["status"] == "finished"  # a question changes nothing
        records.move_aside(tmp_path)
        assert records.read_history(tmp_path / f"earlier-{attempt}")[0]["iteration"] == attempt
    assert records.read_info(tmp_path) is None


def test_a_run_that_was_half_moved_aside_is_moved_into_the_same_folder(tmp_path, run):
    records.Record(tmp_path, run, {}).finish("finished")
    (tmp_path / "weights.pt").write_bytes(b"weights")
    (tmp_path / "earlier-1").mkdir()
    (tmp_path / "history.jsonl").rename(tmp_path / "earlier-1/history.jsonl")  # then the process was killed
    records.move_aside(tmp_path)
    assert {path.name for path in (tmp_path / "earlier-1").iterdir()} == {
        "history.jsonl",
        "weights.pt",
        "run.json",
    }
    assert [path.name for path in tmp_path.glob("earlier-*")] == ["earlier-1"]


def test_force_works_after_an_earlier_run_was_deleted(tmp_path, run):
    for name in ("earlier-2", "earlier-10", "earlier-mine"):
        (tmp_path / name).mkdir()
    records.Record(tmp_path, run, {}).finish("finished")
    records.move_aside(tmp_path)
    assert records.read_info(tmp_path / "earlier-11")["status"] == "finished"


def test_files_behind_links_are_found_once_and_by_their_own_path(tmp_path):
    for name in ("runs/b/x.json", "runs/b/x.txt", "elsewhere/y.json", "elsewhere/deep/z.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    runs = tmp_path / "runs"
    (runs / "a").symlink_to(runs / "b")  # the same folder under an earlier name
    (runs / "c").symlink_to(tmp_path / "elsewhere")
    (runs / "b/up").symlink_to(runs)  # a circle
    (runs / "d").symlink_to(runs / "d")
    (runs / "e").symlink_to(tmp_path / "gone")
    expected = ["b/x.json", "c/deep/z.json", "c/y.json"]
    assert [path.relative_to(runs).as_posix() for path in find(runs, "*.json")] == expected
    (tmp_path / "link").symlink_to(runs)
    assert len(find(tmp_path / "link", "*.json")) == 3
    assert find(tmp_path / "gone", "*") == []


def test_an_unfinished_run_is_not_moved_aside(tmp_path, run):
    records.Record(tmp_path, run, {}).finish("interrupted")
    records.move_aside(tmp_path)
    assert records.read_info(tmp_path)["status"] == "interrupted"


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "old")

    def fails(file):
        file.write(b"ha")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_whole(path, fails)
    assert path.read_text() == "old"
    write_whole(path, lambda file: file.write(b"new"), durable=True)
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_an_unfinished_run_is_not_finished(tmp_path, run, status):
    records.Record(tmp_path, run, {}).finish(status)
    assert not records.already_finished(tmp_path, run)


def test_a_full_disk_is_named_and_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "old")
    with largest_file(1000), pytest.raises(OSError, match="File too large") as raised:
        write_whole(path, 5000 * "x")
    assert raised.value.filename == str(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_row_that_finds_no_room_leaves_no_half(tmp_path, run):
    record = records.Record(tmp_path, run, {})
    record.append(ROW)
    size = (tmp_path / "history.jsonl").stat().st_size
    for room in (0, 10):
        with largest_file(size + room), pytest.raises(OSError, match=r"history\.jsonl"):
            record.append({**ROW, "iteration": 4})
        assert (tmp_path / "history.jsonl").stat().st_size == size
    record.append({**ROW, "iteration": 6})
    assert [row["iteration"] for row in record.rows] == [2, 6]
    assert records.read_history(tmp_path) == record.rows


def test_a_record_that_begins_leaves_the_rows_of_before_until_it_starts(tmp_path, run):
    before = records.Record(tmp_path, run, {})
    before.append(ROW)
    before.append({**ROW, "iteration": 4})
    before.finish("interrupted")
    records.Record(tmp_path, run).finish("failed", reason="no images")
    info = records.read_info(tmp_path)
    assert (info["status"], info["reason"], info["attempt"]) == ("failed", "no images", 2)
    assert len(records.read_history(tmp_path)) == 2
    assert records.broken(info, records.read_history(tmp_path)) is None
    record = records.Record(tmp_path, run)
    assert len(records.read_history(tmp_path)) == 2
    record.start({"device": "cpu"}, records.read_history(tmp_path)[:1])
    assert records.read_history(tmp_path) == record.rows == [ROW]
    assert records.read_info(tmp_path)["environment"] == {"device": "cpu"}


def test_a_resumed_run_names_the_attempts_that_made_its_iterations(tmp_path, run):
    def attempt(threads, rows=None, iteration=0):
        record = records.Record(tmp_path, run)
        record.start({"threads": threads}, rows, iteration)
        return [
            (part["attempt"], part["until"], part["environment"]["threads"]) for part in record.info["resumed"]
        ]

    assert attempt(1) == []
    assert attempt(2, [ROW], 3) == [(1, 3, 1)]
    records.Record(tmp_path, run).finish("failed", reason="no images")  # makes no iteration
    assert attempt(4, [ROW], 5) == [(1, 3, 1), (2, 5, 2)]
    assert attempt(8, [ROW], 5) == [(1, 3, 1), (2, 5, 2)]
    assert attempt(1, [ROW], 2) == [(1, 2, 1)]  # the later checkpoints were damaged
    made = records.read_info(tmp_path)["resumed"]
    assert [part["commit"] for part in made] == [records.read_info(tmp_path)["commit"]]
    assert attempt(1) == []


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_commit_is_dirty_by_what_makes_runs_alone(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert commit_of(tmp_path) is None
    git("init", "--quiet")
    for name in ("repro/train.py", "paper_figures/fig5b.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("first")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    commit = git("rev-parse", "HEAD")[:12]
    (tmp_path / "paper_figures/fig5b.csv").write_text("drawn again")
    assert commit_of(tmp_path / "repro") == commit
    (tmp_path / "repro/train.py").write_text("other")
    assert commit_of(tmp_path / "repro") == f"{commit}-dirty"


def test_the_time_of_a_run_is_that_of_all_its_attempts(tmp_path, run):
    records.Record(tmp_path, run, {}).finish("interrupted")
    records.write_info(tmp_path, {**records.read_info(tmp_path), "wall_seconds": 1000.0})
    resumed = records.Record(tmp_path, run)
    resumed.start({}, [ROW], 2)
    resumed.finish("interrupted")
    assert 1000 <= records.read_info(tmp_path)["wall_seconds"] < 1060
    again = records.Record(tmp_path, run)
    again.start({})  # from the beginning
    again.finish("finished")
    assert records.read_info(tmp_path)["wall_seconds"] < 60
