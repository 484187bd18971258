"""The report: one page, whole in itself, that says what was run and what came of it."""

import re
import shutil
import subprocess

import pytest
from omegaconf import OmegaConf
from test_figures import fig5b  # noqa: F401

from repro import report
from repro.folders import CONF

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def page(request, run_app, fig5b):  # noqa: F811
    """The page of a figure whose runs are half there."""
    done = run_app("report", "figure=fig5b", "scale=demo", "formats=[svg]")
    assert done.returncode == 0, done.stderr
    return fig5b / "paper_figures/demo/index.html", done.stdout


def test_a_page_says_it_all(page):
    path, _ = page
    html = path.read_text()
    for part in (
        "Figure 5b: super-convergence and weight decay",
        "This is demo scale, not the paper's",
        "undecided at demo scale",
        "WD 1e-3 (3 of 4 seeds)",
        "note: wd_1e-6 seeds 0, 1, 2, 3: missing",
        "python -m repro.train sweep=fig5b scale=demo",
        "4 runs finished, 1 unfinished",
        "replicates=author",
        "92.44",
        "<svg role=",
    ):
        assert part in html, part
    assert ">reproduced<" not in html
    assert ">not reproduced<" not in html


def test_nothing_on_a_page_is_fetched(page):
    html = page[0].read_text()
    assert not re.search(r'(src|href)="(?!#|data:,|https://arxiv\.org/)', html.replace("xlink:href", "href"))
    assert "@import" not in html
    assert "url(http" not in html


def test_ids_are_unique_to_their_figure(page):
    html = page[0].read_text()
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html))
    assert {a or b for a, b in used} <= set(ids)


def test_the_terminal_says_where_and_what(page):
    _, out = page
    assert "the report: paper_figures/demo/index.html" in out
    assert "5b-2" in out


# A headless window is at least 500 pixels wide; a frame in it can be as narrow as a phone. The page reports its width,
# by how much it is too wide although one of its tables is far too wide, and the same of each stacked table's box.
PROBE = """<script>onload = () => {
document.querySelector("table:not(.stacked)").style.width = "2000px"
const boxes = [document.documentElement, ...document.querySelectorAll(".wide:has(.stacked)")]
parent.postMessage([innerWidth, ...boxes.map(box => box.scrollWidth - box.clientWidth)].join(" "), "*")
}</script></body>"""
FRAME = """<!doctype html><script>onmessage = event => document.title = event.data</script>
<iframe src="probe.html" style="border: 0; width: %dpx; height: 2000px"></iframe>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page in")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_page_without_a_complaint(page, tmp_path, width):
    path, _ = page
    path.with_name("probe.html").write_text(path.read_text().replace("</body>", PROBE))
    framed = path.with_name("frame.html")
    framed.write_text(FRAME % width)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
               "--disable-component-update", "--no-first-run", "--enable-logging=stderr", "--v=0",
               f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]  # fmt: skip
    dump = subprocess.run([*command, framed.as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in dump.stderr
    title = re.search(r"<title>([-\d ]+)</title>", dump.stdout)
    assert title, dump.stdout[:500]
    inner, page_overflow, *table_overflows = map(int, title[1].split())
    assert inner == width
    assert page_overflow <= 0  # a wide table scrolls, not the page
    assert table_overflows
    assert max(table_overflows) <= 0  # the claims do not even scroll


def test_the_readme_lists_the_differences():
    readme = (CONF.parent / "README.md").read_text()
    for row in report.differences().rows:
        assert f"| {' | '.join(row)} |" in readme


@pytest.mark.parametrize("entry", OmegaConf.load(CONF / "differences.yaml"), ids=lambda entry: entry.what)
def test_a_difference_is_what_the_configuration_does(resolved, entry):
    if "key" not in entry:
        pytest.skip("nothing in the configuration decides this one")
    experiment = f"experiment={entry.get('in', 'fig5a/clr_3.0')}"
    run = OmegaConf.structured(resolved(experiment))
    value = OmegaConf.select(run, entry.key)
    assert getattr(value, "value", value) == entry.ours
    switch = entry.switch.replace("=N", "=100").replace("=X", "=0.01")
    base = "experiment=fig8b/tbs512" if entry.key == "replicates" else experiment
    assert resolved(base, switch) != resolved(base)
