"""A GPU that is there and cannot be used is named."""

import pytest
import torch

from repro.training import devices


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """The device file of a driver whose GPU torch cannot use."""

    def init():
        raise RuntimeError("The driver is too old\nand more")

    monkeypatch.setattr(devices, "DEVICES", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia0").touch()
    return tmp_path / "nvidia0"


def test_a_gpu_that_torch_cannot_use_is_named_with_the_reason(driver):
    assert devices.unusable_gpu() == (
        f"device=auto is the CPU: torch cannot use the GPU of {driver} (The driver is too old)"
    )


def test_nothing_is_said_where_there_is_no_gpu_or_it_is_used_or_hidden(driver, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        assert devices.unusable_gpu() is None
    with monkeypatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert devices.unusable_gpu() is None
    driver.unlink()
    assert devices.unusable_gpu() is None
