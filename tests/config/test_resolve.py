"""What ``auto`` means on this machine."""

from __future__ import annotations

import pytest
import torch

from fastnst.config.resolve import choose_convolution, choose_device, choose_history_dtype, choose_precision
from fastnst.errors import UsageError

CPU = torch.device("cpu")


@pytest.mark.parametrize("device", ["cpu", CPU])
def test_a_device_may_be_a_string_or_a_torch_device(device: str | torch.device) -> None:
    assert choose_device(device) == CPU


@pytest.mark.parametrize("device", ["gpu", "cuda:99", torch.device("cuda", 99)])
def test_a_device_that_is_not_available_is_refused(device: str | torch.device) -> None:
    with pytest.raises(UsageError, match=f"device {str(device)!r} cannot be used"):
        choose_device(device)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float64"])
def test_a_precision_is_the_dtype_of_its_name(name: str) -> None:
    assert choose_precision(name, CPU) == getattr(torch, name)


def test_auto_never_chooses_float64_and_no_winograd_for_it() -> None:
    assert choose_precision("auto", CPU) in (torch.float32, torch.bfloat16)
    assert not choose_convolution("auto", CPU, torch.float64)


def test_the_history_follows_features_stored_in_bfloat16_on_the_cpu() -> None:
    assert choose_history_dtype("auto", CPU, torch.bfloat16) == "bfloat16"
    assert choose_history_dtype("auto", CPU, torch.float32) == "auto"  # the dtype of the image
    assert choose_history_dtype("auto", torch.device("cuda"), torch.bfloat16) == "auto"
    assert choose_history_dtype("float32", CPU, torch.bfloat16) == "float32"
    assert choose_history_dtype("bfloat16", torch.device("cuda"), torch.float32) == "bfloat16"
