"""Final weights tested again: what is found, what was recorded, whether they agree, and every broken file named."""

import json
import pickle
import shutil

import pytest
import torch

from repro import evaluate, models
from repro.config.errors import ReproError
from repro.records import read_history
from repro.training import lifecycle


@pytest.fixture(scope="module")
def trained(resolved, tmp_path_factory):
    """Two seeds of a smoke run."""
    home = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        run = resolved("experiment=fig5a/clr_3.0", "scale=smoke", "tracking=disabled", f"seed={seed}")
        lifecycle.run(run, home / f"seed{seed}")
    return home


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained / "seed0", tmp_path / "seed0")


@pytest.fixture
def evaluated(run, monkeypatch, capsys):
    """A function: options -> exit status (None, or the line of an error) and the lines printed, for ``run``."""

    def call(*options):
        monkeypatch.setattr("sys.argv", ["repro-evaluate", str(run), *options])
        try:
            evaluate.main()
            code = None
        except (SystemExit, ReproError) as error:  # repro.command prints the second as the first
            code = error.code if isinstance(error, SystemExit) else f"error: {error}"
            assert len(code.splitlines()) == 1
        return code, capsys.readouterr().out.splitlines()

    return call


def change(run, **keys):
    """Change ``run.json``, a dotted key with __ for the dot."""
    info = json.loads((run / "run.json").read_text())
    for key, value in keys.items():
        *path, last = key.split("__")
        inner = info
        for part in path:
            inner = inner[part]
        inner[last] = value
    (run / "run.json").write_text(json.dumps(info))


def forget_digest(run):
    """Make the record one from before records had the digest of their weights."""
    info = json.loads((run / "run.json").read_text())
    del info["weights_sha256"]
    (run / "run.json").write_text(json.dumps(info))


def test_it_says_what_it_found_what_was_recorded_and_that_they_agree(run, evaluated):
    last = read_history(run)[-1]
    values = f"test loss {last['test_loss']:.6f}  accuracy {last['test_accuracy']:.4%}"
    assert evaluated() == (None, [f"found     {values}", f"recorded  {values}", "they agree"])


def test_other_weights_than_the_run_recorded_are_one_line(run, evaluated, trained):
    weights = run / "weights.pt"
    flipped = bytearray(weights.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    for content in (bytes(flipped), (trained / "seed1/weights.pt").read_bytes()):
        weights.write_bytes(content)
        line = "not the weights that the run recorded (another SHA-256); force=true trains the run again"
        assert evaluated() == (f"error: {weights}: {line}", [])
    weights.unlink()
    assert evaluated() == (f"error: {run}: no weights.pt; the run's status is finished", [])
    weights.mkdir()
    assert evaluated()[0].startswith(f"error: {weights}: cannot be read: Is a directory")


def test_other_weights_are_noticed_without_a_digest_too(run, evaluated, trained):
    forget_digest(run)
    shutil.copy(trained / "seed1/weights.pt", run)
    code, lines = evaluated()
    assert code.startswith(f"error: {run}: the test differs from the record: test loss by ")
    assert [line.split()[0] for line in lines] == ["found", "recorded"]


@pytest.mark.parametrize(("loss", "agrees"), [(0.0005, True), (0.002, False)])
def test_rounding_is_no_difference(run, loss, agrees):
    info, row = evaluate.recorded(run)
    found = row["test_loss"] * (1 + loss) if row["test_loss"] > 1 else row["test_loss"] + loss
    assert (evaluate.difference(info, row, found, row["test_accuracy"]) is None) is agrees
    assert (evaluate.difference(info, row, row["test_loss"], row["test_accuracy"] + loss) is None) is agrees
    assert evaluate.difference(info, {**row, "test_loss": None}, 1.0, 0.5) is not None


def cut(run):
    lines = (run / "history.jsonl").read_text().splitlines(keepends=True)
    (run / "history.jsonl").write_text("".join(lines[:-1]))


def tamper(run):
    lines = (run / "history.jsonl").read_text().splitlines(keepends=True)
    row = {**json.loads(lines[-1]), "test_accuracy": 0.99}
    (run / "history.jsonl").write_text("".join(lines[:-1]) + json.dumps(row) + "\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "history.jsonl: it has 5 rows, and the run recorded 6"),
        (tamper, "history.jsonl: its 6 rows have other values than the run recorded"),
        (lambda run: (run / "history.jsonl").unlink(), "history.jsonl: it has 0 rows, and the run recorded 6"),
        (lambda run: (run / "history.jsonl").write_text("[]\n"), "history.jsonl:1: not a JSON row"),
        (lambda run: change(run, status="interrupted"), "its status is interrupted; it has no final test"),
    ],
)
def test_a_record_that_is_not_whole_is_not_held_against_it(run, evaluated, spoil, message):
    spoil(run)
    code, lines = evaluated()
    assert message in code
    assert [line.split()[0] for line in lines] == ["found"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"cut"),
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: path.write_bytes(pickle.dumps([1, 2])),
        lambda path: path.write_bytes(pickle.dumps(lifecycle.run)),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"stem.weight": torch.zeros(3)}, path),
        lambda path: torch.save(models.build("resnet56_superconv", 10, blocks=2, channels=1).state_dict(), path),
    ],
)
def test_weights_that_are_not_the_runs_are_one_line(run, evaluated, spoil):
    forget_digest(run)
    spoil(run / "weights.pt")
    code, lines = evaluated()
    assert code.startswith(f"error: {run}/weights.pt: not the weights of this run's network (")
    assert lines == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would be used")
def test_a_device_that_is_not_there_is_one_line(evaluated):
    assert evaluated("--device", "cuda")[0].startswith("error: device=cuda: ")


def test_a_device_that_there_is_not_is_one_line(evaluated):
    assert evaluated("--device", "tpu9x")[0].startswith("error: device=tpu9x: ")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"config__dataset__digest": "0" * 16}, "dataset.digest=0000000000000000: the images of digits under"),
        ({"config__later": 1}, "run.json: its configuration is from another version of the suite (Key 'later'"),
        ({"config__dataset__name": "gone"}, "dataset.name=gone: choose from"),
        ({"config": "mine"}, "run.json: not a record of this suite"),
    ],
)
def test_another_record_is_one_line(run, evaluated, keys, message):
    change(run, **keys)
    code, lines = evaluated()
    assert message in code
    assert lines == []
