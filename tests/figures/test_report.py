"""The report: one page, whole in itself, that says what was run and what came of it."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest
from omegaconf import OmegaConf
from test_claims import VERDICTS, frame, points
from test_figures import fig5b, write_run  # noqa: F401

from repro.config.folders import CONF
from repro.figures import captions, claims
from repro.figures import page as pages
from repro.figures.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Claim, Rule
from repro.records import runs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def page(request, run_app, fig5b):  # noqa: F811
    """The page of a figure whose runs are half there."""
    done = run_app("report", "figure=fig5b", "scale=demo", "formats=[svg]")
    assert done.returncode == 0, done.stderr
    return fig5b / "paper_figures/demo/index-fig5b.html", done.stdout


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
        "<pre>python -m repro.report scale=demo figure=fig5b</pre>",
        "4 runs finished, 1 unfinished",
        "replicates=author",
        "92.44",
        "<svg role=",
    ):
        assert part in html, part
    assert ">reproduced<" not in html
    assert ">not reproduced<" not in html


class Parsed(HTMLParser):
    """A page's elements (tag and attributes), its text outside styles, and its tables: rows of (text, class)."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.tables = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.before = len(self.text)

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            kind = next(attrs.get("class") for name, attrs in reversed(self.elements) if name == tag)
            self.tables[-1][-1].append((self.text[self.before :], kind))

    def handle_data(self, data):
        if self.cdata_elem is None:
            self.text += data


def test_nothing_on_a_page_is_fetched(page):
    html = page[0].read_text()
    assert not re.search(r"@import|url\((?!#)", html)
    for tag, attrs in Parsed(html).elements:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        assert attrs.keys().isdisjoint({"srcset", "data", "poster", "action", "http-equiv"})
        for name in attrs.keys() & {"src", "href", "xlink:href"}:
            paper = tag == "a" and attrs[name] == "https://arxiv.org/abs/1803.09820"
            assert paper or attrs[name].startswith(("#", "data:")), (tag, attrs)


def a_figure(folder, held, scale, name="fig", text="plain"):
    """A figure with these claims, judged on accuracies of 90 ± 1 points; all else that is said about it is ``text``."""
    write_run(folder / name / "seed0", [(0, 0.1), (4, 0.2)])
    (folder / f"{name}.svg").write_text('<?xml version="1.0"?><svg viewBox="0 0 1 1"></svg>')
    judged = claims.table(held, frame(a=points(90, 1)), range(4), scale)
    tables = [captions.Table([text], [[text]], text, [text]), captions.verdicts(judged)]
    found = runs.local({text: folder / name})
    return captions.Drawn(
        "figure", name, text, text, found, folder / name, text, [text], tables, judged, notes=[text], errors=[]
    )


def test_a_page_has_the_runs_on_wandb(tmp_path):
    figure = a_figure(tmp_path, {"c": Claim("text", above(50))}, "demo")
    assert "Weights" not in pages.page([figure], "demo", [], [])
    figure.runs.info["plain", 0]["wandb"] = {"url": "https://wandb.ai/me/mine/runs/x"}
    figure.runs.info["plain", 1] = {**figure.runs.info["plain", 0], "wandb": {"url": "javascript:alert(1)"}}
    html = pages.page([figure], "demo", [], [])
    assert '<li><a href="https://wandb.ai/me/mine/runs/x">fig plain seed 0</a></li>' in html
    assert "javascript" not in html


def test_the_time_of_a_figure_is_that_of_all_its_runs(tmp_path):
    figure = a_figure(tmp_path, {"c": Claim("text", above(50))}, "demo")
    figure.runs.info["plain", 1] = {**figure.runs.info["plain", 0], "wall_seconds": 120.0}
    assert pages.run_table([figure]).rows == [["fig", "2 runs finished", "3.0 min", "5", "cpu"]]


LIMITS = {verdict: limit for limit, verdict, _ in VERDICTS}


def above(*limits):
    return [Rule(curve="a", above=limit) for limit in limits]


@pytest.mark.parametrize("scale", ["paper", "demo"])
def test_a_verdict_has_the_colour_of_what_it_is(tmp_path, scale):
    colours = {REPRODUCED: "good", NOT_REPRODUCED: "bad", UNDECIDED: "open"}
    words = {verdict: claims.in_words(verdict, scale) for verdict in colours}
    # What each claim says is the words of a verdict, and stays uncoloured.
    held = {verdict: Claim(words[verdict], above(LIMITS[verdict])) for verdict in colours}
    held["both"] = Claim("so it is", above(LIMITS[REPRODUCED], LIMITS[NOT_REPRODUCED]))
    html = pages.page([a_figure(tmp_path, held, scale)], scale, [], [])
    assert all(re.search(rf"\.{colour}\b[^{{}}]*{{ color: #", html) for colour in colours.values())
    overview, _, judged, *_ = Parsed(html).tables
    coloured = [[cell for cell in row if cell[1]] for row in overview + judged]
    good, bad, undecided = ((words[verdict], colour) for verdict, colour in colours.items())
    assert coloured == [
        [], [bad], [bad], [undecided], [good],
        [], [good, good], [bad, bad], [undecided, undecided], [bad, good], [bad],
    ]  # fmt: skip


def test_the_claims_that_fail_come_first_with_their_numbers(tmp_path):
    figures = [
        a_figure(tmp_path, {f"{name}-{v}": Claim("so it is", above(LIMITS[v])) for v in order}, "paper", name)
        for name, order in (("x", (REPRODUCED, UNDECIDED)), ("y", (REPRODUCED, NOT_REPRODUCED, UNDECIDED)))
    ]
    (header, *rows), *_ = Parsed(pages.page(figures, "paper", [], [])).tables
    assert [text for text, _ in header] == [
        "figure", "claim", "the text says", "verdict", "rule: ours, with 95 % interval",
    ]  # fmt: skip
    expected = [("y", NOT_REPRODUCED), ("x", UNDECIDED), ("y", UNDECIDED), ("x", REPRODUCED), ("y", REPRODUCED)]
    assert [[text for text, _ in row] for row in rows] == [
        [name, f"{name}-{v}", "so it is", v, f"final_accuracy(a) > {LIMITS[v]}: 90 [88.4, 91.6]"]
        for name, v in expected
    ]


def test_text_is_never_markup(tmp_path):
    text = """<b class="x">&amp; it's"""
    held = {text: Claim(text, above(70))}
    parsed = Parsed(pages.page([a_figure(tmp_path, held, "demo", text=text)], "demo", [text], [text]))
    assert "b" not in {tag for tag, _ in parsed.elements}
    assert dict(parsed.elements)["svg"]["aria-label"] == text
    # Title, subtitle, how to read it, table (title, header, cell, note), two commands, note, error; the claim and what it
    # says, twice; the curve above its configuration.
    assert parsed.text.count(text) == 16


def test_ids_are_unique_to_their_figure(page):
    html = page[0].read_text()
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html))
    assert {a or b for a, b in used} <= set(ids)


def test_the_terminal_says_where_and_what(page):
    path, out = page
    assert "the report: paper_figures/demo/index-fig5b.html" in out
    assert not path.with_name("index.html").exists()  # that is the page of every figure
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
    for row in pages.differences().rows:
        assert f"| {' | '.join(row)} |" in readme


def test_the_readme_shows_every_claim_at_quick_scale_those_that_fail_first():
    root = CONF.parent
    files = {path.stem: path for path in (root / "paper_figures/quick").glob("*.claims.csv")}
    order = [f"{name}.claims" for name in OmegaConf.load(CONF / "figure/all.yaml").defaults]
    assert set(files) <= set(order)
    order = [name for name in order if name in files]  # what has been trained at that scale
    tables = {name.removesuffix(".claims"): pd.read_csv(files[name], dtype={"seeds": str}) for name in order}
    rows = pages.verdict_table(tables).rows
    lines = [f"| {' | '.join(cell.replace(chr(10), '<br>') for cell in row)} |" for row in rows]
    section = (root / "README.md").read_text().partition("<!-- claims -->")[2].partition("<!-- end -->")[0]
    assert section.strip().splitlines()[2:] == lines


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
    assert resolved(base, *switch.split()) != resolved(base)
