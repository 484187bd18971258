"""Bits that a disk flips, blocks that it zeroes: a run never ends with other results without a word."""

import json
import random
import shutil
from dataclasses import replace

import pytest
from test_resume import are_equal, train_until

from repro import evaluate
from repro.config.errors import ReproError
from repro.records import already_finished, history, read_history, read_info, runs
from repro.sweeps import states
from repro.training import checkpoints, lifecycle

RUN = ("experiment=fig5a/clr_3.0", "scale=smoke", "tracking=disabled", "threads=1", "checkpoint_iterations=2")
LOST = "no longer has as recorded; falling back to the previous checkpoint, or to the start"


@pytest.fixture(scope="module")
def run(resolved):
    """Ten iterations, a row every second one."""
    return resolved(*RUN)


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """A folder with a run that ended, ``whole``, and one that died in its ninth iteration, ``half``."""
    folder = tmp_path_factory.mktemp("runs")
    lifecycle.run(run, folder / "whole")
    with pytest.MonkeyPatch.context() as patch:
        train_until(run, folder / "half", 9, patch)
    return folder


@pytest.fixture
def whole(made, tmp_path):
    return shutil.copytree(made / "whole", tmp_path / "fig5a/clr_3.0/seed0")


@pytest.fixture
def half(made, tmp_path):
    return shutil.copytree(made / "half", tmp_path / "half")


def raised(call):
    """The line of the error that a function raises; "" where it raises none."""
    try:
        call()
    except ReproError as error:
        assert len(lines := str(error).splitlines()) == 1, lines  # noqa: PT017
        return str(error)
    return ""


def flip(path, rng):
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def test_every_flip_of_a_counted_row_is_noticed(half):
    path, (newest, older) = half / "history.jsonl", checkpoints.find(half)
    states = [checkpoints.read(checkpoint, "cpu") for checkpoint in (newest, older)]
    whole, rows = path.read_bytes(), read_history(half)
    assert [history.counted(half, state) for state in states] == [rows, rows[:-1]]
    end = whole[:-1].rindex(b"\n") + 1  # of what the older one counts on
    for index in range(len(whole)):
        content = bytearray(whole)
        content[index] ^= 1 << index % 8
        path.write_bytes(content)
        kept = [None, rows[:-1] if index >= end else None]
        assert [history.counted(half, state) for state in states] == kept, index


@pytest.mark.parametrize("name", ["history.jsonl", "run.json", "checkpoint-*8.pt"])
@pytest.mark.parametrize("seed", range(4))
def test_an_unfinished_run_with_a_flipped_bit_ends_with_the_same_bits_or_one_line(
    run, half, made, caplog, name, seed
):
    (path,) = half.glob(name)
    flip(path, random.Random(f"{name}{seed}"))
    if line := raised(lambda: lifecycle.run(run, half)):
        assert path.name == "run.json"
        assert line.startswith(f"{path}: broken (")
        return
    assert are_equal(half, made / "whole")
    assert read_info(half)["digest"] == read_info(made / "whole")["digest"]
    if path.name != "run.json":
        assert caplog.text.count("falling back to the previous checkpoint, or to the start") in (1, 2)


def zero(path):
    content = path.read_bytes()
    path.write_bytes(content[:50] + bytes(200) + content[250:])


def zero_end(path):
    content = path.read_bytes()
    path.write_bytes(content[:-50] + bytes(50))


def drop_first_line(path):
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])


def say_another_speed(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(lines[0]), "images_per_second": 1.0}), *lines[1:], ""]))


@pytest.mark.parametrize(
    ("spoil", "after", "lost"),
    [
        (zero, None, 2),
        (drop_first_line, None, 2),
        (lambda path: path.unlink(), None, 2),
        (say_another_speed, None, 2),
        (zero_end, 6, 1),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0\0\n\0\n"), 8, 0),  # after what is counted on
    ],
)
def test_rows_that_a_checkpoint_counts_on_and_are_gone(run, half, made, caplog, spoil, after, lost):
    spoil(half / "history.jsonl")
    with caplog.at_level("INFO"):
        lifecycle.run(run, half)
    assert caplog.text.count(LOST) == lost
    assert (f"resuming after iteration {after} of 10" in caplog.text) is (after is not None)
    assert are_equal(half, made / "whole")


@pytest.mark.parametrize("spoil", [None, zero])
def test_a_checkpoint_from_before_it_had_a_digest_counts_on_the_rows_up_to_its_iteration(
    run, half, made, caplog, spoil
):
    for path in checkpoints.find(half):
        state = checkpoints.read(path, "cpu")
        del state["history"]
        checkpoints.write(path, state)
    if spoil:
        spoil(half / "history.jsonl")
    with caplog.at_level("INFO"):
        lifecycle.run(run, half)
    assert ("resuming after iteration 8 of 10" in caplog.text) is (spoil is None)
    assert are_equal(half, made / "whole")


def test_a_checkpoint_of_another_configuration_is_named_before_it_goes(half, resolved, caplog):
    lifecycle.run(resolved(*RUN, "batch_size=64"), half)
    assert (
        f"{half}: deleting the checkpoints of another configuration (batch_size: 125 there, 8 now)" in caplog.text
    )


def test_a_finished_run_with_other_files_than_it_recorded_is_refused_until_it_is_forced(run, whole, made):
    weights, rows = whole / "weights.pt", whole / "history.jsonl"
    sound = weights.read_bytes()
    for seed in range(10):
        weights.write_bytes(sound)
        flip(weights, random.Random(seed))
        line = "not the weights that the run recorded (another SHA-256); force=true trains the run again"
        assert raised(lambda: lifecycle.run(run, whole)) == f"{weights}: {line}"
    drop_first_line(rows)
    line = "it has 5 rows, and the run recorded 6; force=true trains the run again"
    assert raised(lambda: lifecycle.run(run, whole)) == f"{rows}: {line}"
    zero(rows)
    assert raised(lambda: lifecycle.run(run, whole)).startswith(f"{rows}:1: not a JSON row; force=true ")
    assert read_info(whole)["status"] == "finished"
    lifecycle.run(replace(run, force=True), whole)
    assert are_equal(whole, made / "whole")
    assert (whole / "earlier-1/weights.pt").exists()


def test_a_finished_run_without_a_digest_of_its_weights_or_without_weights_stays_finished(run, whole):
    (whole / "weights.pt").unlink()
    assert already_finished(whole, run)
    info = json.loads((whole / "run.json").read_text())
    del info["weights_sha256"]
    (whole / "run.json").write_text(json.dumps(info))
    (whole / "weights.pt").write_bytes(b"of before")
    assert already_finished(whole, run)


def test_a_finished_record_with_a_flipped_bit_is_one_line_everywhere(run, whole):
    path, home = whole / "run.json", whole.parent
    sound = path.read_bytes()
    rng = random.Random(5)

    def figures():
        loaded = runs.local({"fig5a/clr_3.0": home})
        runs.outdated(loaded, "smoke")
        return loaded.broken

    named = 0
    for _ in range(20):
        path.write_bytes(sound)
        flip(path, rng)
        line = raised(lambda: read_info(whole))
        if not line:  # it parses: another record, or the same
            assert raised(figures) == ""
            assert states.describe_run(whole, run)["state"] not in ("missing", "broken")
            refusal = raised(lambda: already_finished(whole, run))
            assert not refusal or str(whole) in refusal
            continue
        named += 1
        assert line.startswith(f"{path}: ")
        assert states.describe_run(whole, run)["reason"] == line
        assert figures() == [line]
        assert raised(lambda: already_finished(whole, run)) == line
        assert raised(lambda: evaluate.evaluate(whole)) == line
    assert named > 5
