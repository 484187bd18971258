"""What README and docs say can be typed and followed: links lead somewhere, commands compose."""

import importlib.util
import re
import shlex

import pytest
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser

from repro.config.folders import CONF
from repro.figures import settings
from repro.search.app import refuse, split
from repro.sweeps.arguments import expand_sweep

ROOT = CONF.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("*/README.md")),
]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
COMMAND = re.compile(r"python\s+-m\s+(repro[\w.]*)([^`\n|]*(?:\n[^`\n|]+(?=`))?)")


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_somewhere(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path) if path else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def commands():
    """Every command of the pages once: its module and arguments. What stands for the reader's own is left out."""
    found = {}
    for text in TEXTS.values():
        for module, rest in COMMAND.findall(text):
            arguments = shlex.split(rest.rpartition("  #")[0] or rest)
            if "--config-dir" not in arguments:  # a folder of the reader's own
                kept = [a for a in arguments if not re.search(r"\.\.\.|<|^\[|\]$|hydra[./]|=NAME$", a)]
                found[module, tuple(kept)] = None
    return list(found)


def single(argument):
    """One value in place of several."""
    override = OverridesParser.create().parse_override(argument)
    if not override.is_sweep_override():
        return argument
    values = override.sweep_string_iterator() if override.is_discrete_sweep() else ["0"]
    return f"{override.get_key_element()}={next(iter(values))}"


@pytest.mark.parametrize("command", commands(), ids=lambda command: " ".join([command[0], *command[1]]))
def test_every_command_can_be_typed(command, composed):
    module, arguments = command
    assert importlib.util.find_spec(module)
    overrides = [argument for argument in arguments if "=" in argument]
    if module in ("repro.train", "repro.status"):
        expanded = [a for a in expand_sweep(overrides) if not a.startswith("hydra.")]
        assert composed(*map(single, expanded))
    elif module in ("repro.figures", "repro.report"):
        settings.register_schema()
        assert settings.settings_of(compose("figures", overrides), overrides)
    elif module == "repro.search":
        own, training = split(overrides)
        refuse(training)
        assert compose("search", own)
        assert composed(*training)


def test_there_are_commands():
    assert {module for module, _ in commands()} >= {"repro.train", "repro.figures", "repro.search", "repro.report"}
