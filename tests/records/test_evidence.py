"""The records in evidence/: whole, of today's protocol, and what is published of them is what they give."""

import re
from pathlib import Path

import pandas as pd
import pytest

from repro import schedules
from repro.config import PROTOCOL
from repro.config.folders import CONF
from repro.figures.claims import measured
from repro.records import FINISHED, broken, outdated, read_history, read_info, starts
from repro.records.runs import local

ROOT = CONF.parent
RUNS = sorted(path.parent.relative_to(ROOT) for path in ROOT.glob("evidence/**/run.json"))
ON_CPU = Path("evidence/cpu")  # the same rows once more, on a CPU: `output=evidence/cpu`
PUBLISHED = ROOT / "paper_figures/paper"
VALUES = ("csv", "md", "tex")  # of a figure's files: a drawing's bytes are matplotlib's


def test_there_are_records():
    assert RUNS


@pytest.mark.parametrize("folder", RUNS, ids=str)
def test_a_record_is_whole_and_of_this_protocol(resolved, folder):
    root = ON_CPU if folder.is_relative_to(ON_CPU) else Path("evidence")
    scale, figure, curve, *changes, seed = folder.relative_to(root).parts
    info, rows = read_info(ROOT / folder), read_history(ROOT / folder)
    config = resolved(f"experiment={figure}/{curve}", f"scale={scale}", f"seed={seed[4:]}", *info["overrides"])
    starts.settle(config, info["overrides"])
    assert ",".join(info["overrides"]) == "/".join(changes)
    assert (info["status"] in FINISHED, info["protocol"]) == (True, PROTOCOL)
    assert broken(info, rows) is None
    assert outdated(info, config) is None
    assert not info["commit"].endswith("dirty")
    assert not Path(info["config"]["dataset"]["root"]).is_absolute()
    begin = config.start.iteration or 0
    grid = [i for i in range(begin, config.iterations + 1) if i % config.test_every == 0 or i == config.iterations]
    tested = [row["iteration"] for row in rows]
    if info["status"] == "finished":
        assert tested == grid[not config.test_at_start :]
    else:
        assert tested[:-1] == grid[not config.test_at_start :][: len(tested) - 1]
    schedule = schedules.build(config.schedule.lr, config.schedule.momentum)
    assert [(row["lr"], row["momentum"]) for row in rows] == [schedule(i) for i in tested]


def test_what_is_published_is_what_the_records_give(run_app, tmp_path):
    (tmp_path / "evidence").symlink_to(ROOT / "evidence")
    done = run_app("report", "output=evidence", "formats=[svg]")
    drawn = tmp_path / "paper_figures/paper"
    assert all("no runs at scale paper" in line for line in done.stderr.splitlines()), done.stderr

    def names(folder):
        return {path.name for path in folder.glob("*.*") if path.suffix[1:] in VALUES}

    assert names(drawn) == names(PUBLISHED)
    for name in names(drawn):
        if name.endswith(".csv"):  # all digits of a number, the last of which are scipy's
            pd.testing.assert_frame_equal(
                pd.read_csv(drawn / name), pd.read_csv(PUBLISHED / name), rtol=1e-9, obj=name
            )
        else:
            assert (drawn / name).read_text() == (PUBLISHED / name).read_text(), name
    for folder in (drawn, PUBLISHED):
        assert "python -m repro.report scale=paper output=evidence</pre>" in (folder / "index.html").read_text()


def rows_between(document, name):
    """The rows of the table between two marks of a document."""
    text = (ROOT / document).read_text().partition(f"<!-- {name} -->")[2].partition("<!-- end -->")[0]
    return text.strip().splitlines()[2:]


def test_the_rows_trained_on_a_cpu_are_documented_beside_those_of_the_tables():
    def finals(folder):
        curves = {f"{path.parent.name}/{path.name}": path for path in (ROOT / folder / "paper").glob("table*/*")}
        return measured(local(curves).frame, "final_accuracy").groupby("curve").agg(["mean", "std", "count"])

    ours = finals(ON_CPU).join(finals("evidence"), suffixes=("", "_gpu"))
    assert (ours[["count", "count_gpu"]] == 4).all(axis=None)
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in rows_between("evidence/README.md", "cpu")
    ]
    said = {row[0]: [float(number) for cell in row[1:] for number in cell.split(" ± ")] for row in rows}
    assert sorted(said) == sorted(ours.index)
    for curve, numbers in said.items():
        expected = ours.loc[curve, ["mean", "std", "mean_gpu", "std_gpu"]]
        assert numbers == pytest.approx(list(expected), abs=0.0051), curve
    apart = (ours["mean"] - ours["mean_gpu"]).abs().max()
    assert f"by more than {apart:.2f} points" in (ROOT / "README.md").read_text()


def test_the_rows_trained_on_a_cpu_have_the_verdicts_of_the_tables(run_app, tmp_path):
    """As evidence/README.md says: of every row and of every claim that has runs."""
    (tmp_path / "evidence").symlink_to(ROOT / "evidence")
    run_app("figures", "table=all", f"output={ON_CPU}", "formats=[svg]")
    compared = 0
    for name in ("table1", "table2"):
        for file, key in ((f"{name}.csv", "curve"), (f"{name}.claims.csv", "claim")):
            drawn, published = (
                pd.read_csv(folder / file).set_index(key)["verdict"]
                for folder in (tmp_path / "paper_figures/paper", PUBLISHED)
            )
            assert drawn.to_dict() == published.to_dict(), file
            compared += (drawn != "undecided").sum()
    assert compared


def test_the_readme_shows_every_row_that_has_runs_first():
    shown = []
    for table in sorted(PUBLISHED.glob("table[0-9].csv")):
        lines = re.findall(r"^\| (?:row|\d+) .*", table.with_suffix(".md").read_text(), re.MULTILINE)
        header, *cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
        for row, texts in zip(pd.read_csv(table).to_dict("records"), cells, strict=True):
            text = dict(zip(header, texts, strict=True))
            published = f"{row['published']:.2f} ± {row['published_sd']}"
            start = [
                f"`{row['curve']}`",
                published,
                *(text[k] for k in ("ours, paper scale", "difference", "runs")),
            ]
            if row["runs"]:
                shown.append((f"| {' | '.join(start)} |", row["verdict"]))
    lines = rows_between("README.md", "evidence")
    assert len(lines) == len(shown)
    for start, verdict in shown:
        assert any(line.startswith(start) and verdict in line for line in lines), start
