"""The option --device of the tests, with the meta device in the place of a GPU."""

from __future__ import annotations

import pytest
import torch
from default_device import default_device


def test_tensors_are_created_on_the_device(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    rand, before = torch.rand, torch.ones(2).device
    with default_device("meta", monkeypatch):
        assert torch.ones(2).device.type == "meta"
        drawn = torch.randn(3, generator=generator, requires_grad=True)
        assert drawn.device.type == "meta" and drawn.is_leaf and drawn.requires_grad
        assert torch.randint(5, (2,), generator=generator).device.type == "meta"
        assert torch.rand(2, generator=generator, device="cpu").device.type == "cpu"
    assert torch.ones(2).device == before and torch.rand is rand


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_test_with_devices(device):
    assert torch.ones(2).device.type == "cpu"


def test_the_option(request):
    device = request.config.getoption("--device") or "cpu"
    assert torch.ones(2).device.type == device
