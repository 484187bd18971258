"""What wandb's variables say is obeyed, or refused in one line."""

import pytest

from repro.config import Mode
from repro.config.errors import ReproError
from repro.tracking import environment, mirror
from repro.tracking.mirror import NAME


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in (
        "WANDB_MODE",
        "WANDB_DISABLED",
        *environment.REFUSED,
        "WANDB_TAGS",
        "WANDB_NOTES",
        "WANDB_RUN_GROUP",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "typed", "mode"),
    [
        ({}, [], "offline"),
        ({"WANDB_MODE": "disabled"}, [], "disabled"),
        ({"WANDB_MODE": "dryrun"}, [], "offline"),
        ({"WANDB_MODE": "online"}, [], "online"),
        ({"WANDB_MODE": "disabled"}, ["tracking"], "offline"),
        ({"WANDB_DISABLED": "true"}, [], "disabled"),
        ({"WANDB_DISABLED": "false"}, [], "offline"),
        ({"WANDB_DISABLED": "1", "WANDB_MODE": "online"}, [], "disabled"),
        ({"WANDB_DISABLED": "1", "WANDB_SWEEP_ID": "x"}, [], "disabled"),
        ({"WANDB_RESUME": "never"}, [], "offline"),
    ],
)
def test_the_mode_is_the_environments_unless_the_command_line_says_one(
    resolved, monkeypatch, variables, typed, mode
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment.obey(resolved("experiment=fig5a/clr_3.0"), typed).tracking.mode is Mode[mode]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WANDB_MODE", "shared", "WANDB_MODE=shared: set it to online, offline or disabled"),
        ("WANDB_RESUME", "must", "WANDB_RESUME=must: every attempt at a run is a separate W&B run"),
        (
            "WANDB_SWEEP_ID",
            "abc",
            "WANDB_SWEEP_ID=abc: a W&B sweep sets values that the record does not contain",
        ),
    ],
)
def test_what_cannot_be_obeyed_is_refused(resolved, monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(ReproError, match=f"^{message}"):
        environment.obey(resolved("experiment=fig5a/clr_3.0"))


def test_a_run_is_described_for_charts_of_its_own(resolved, monkeypatch):
    run = resolved(
        "experiment=fig5a/clr_3.0", "scale=smoke", "tracking.tags=[a,b]", "tracking.notes=why", "seed=7"
    )
    info = {
        "attempt": 3,
        "host": "there",
        "commit": "abc123-dirty",
        "variant": "",
        "command": "python -m x",
        "config": {},
    }
    own = mirror._described(run, info, live=False)
    assert own["group"] == "fig5a/clr_3.0"
    assert own["job_type"] == "train"
    assert own["tags"] == ["fig5a", "fig5a/clr_3.0", "smoke", "seeds", "a", "b"]
    assert "attempt=3" in own["notes"]
    assert own["notes"].endswith("why")
    assert own["settings"] == {"git_commit": "abc123", "host": "there", "program": "python -m x"}
    variant = "model.width=32," + "x" * 200
    changed = mirror._described(run, {**info, "variant": variant}, live=True)
    assert changed["group"] != own["group"]
    assert changed["job_type"] == "variant"
    assert "variant" in changed["tags"]
    assert len(changed["name"]) == len(changed["group"]) == NAME
    assert changed["name"].endswith(" seed 7")
    monkeypatch.setenv("WANDB_TAGS", "c, a," + "d" * 99)
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    monkeypatch.setenv("WANDB_NOTES", "and this")
    said = mirror._described(run, info, live=True)
    assert said["group"] == "mine"
    assert said["tags"][-4:] == ["a", "b", "c", "d" * 64]
    assert said["notes"].endswith("why and this")


def test_tags_and_notes_of_ones_own_are_circumstances(resolved):
    from repro.config import fingerprint

    plain = resolved("experiment=fig5a/clr_3.0")
    switches = ("tracking.tags=[a]", "tracking.notes=n", "tracking.system_metrics=true", "tracking.code=true")
    assert fingerprint(plain) == fingerprint(resolved("experiment=fig5a/clr_3.0", *switches))
