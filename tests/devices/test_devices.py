"""Which path serves a device, by PyTorch's dispatcher; and fake tensors of devices that no machine of ours has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._subclasses import FakeTensorMode

from fastnst import devices, distributed, ops
from fastnst.config.resolve import choose_precision
from fastnst.errors import UsageError

OPS = sorted(name.removeprefix("fastnst::") for name in torch._C._dispatch_get_all_op_names() if "fastnst::" in name)
OF_THE_BUILD = {"build_info", "cuda_release", "cpu_kernels", "cuda_architectures", "cuda_float32_precision"}
DEVICES = ("cuda", "xpu", "mps", "hpu", "privateuseone")


@pytest.mark.parametrize("device", DEVICES)
def test_every_op_has_an_implementation_and_a_derivative_for_every_device(device: str) -> None:
    """What runs is found by PyTorch's dispatcher, as for a tensor on the device."""
    key = torch._C._dispatch_key_for_device(device)
    tensor_ops = set(OPS) - OF_THE_BUILD
    assert len(tensor_ops) == 23
    for name in tensor_ops:
        has = torch._C._dispatch_has_computed_kernel_for_dispatch_key
        assert has(f"fastnst::{name}", key), name
        assert has(f"fastnst::{name}", f"Autograd{key}"), name
    assert set(ops.kernels(device).values()) <= {"reference", "cuda"}
    if device != "cuda":
        assert set(ops.kernels(device).values()) == {"reference"}


def test_a_device_without_float64_refuses_that_precision() -> None:
    for name in ("cpu", "cuda", "meta"):
        assert devices.has_float64(torch.device(name))
        assert choose_precision("float64", torch.device(name)) == torch.float64
    with FakeTensorMode():
        assert not devices.has_float64(torch.device("mps"))
    with pytest.raises(UsageError, match="precision 'float64': device 'mps' has no float64; use float32, or --device"):
        choose_precision("float64", torch.device("mps"))


def test_float64_is_on_the_cpu_where_the_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode():
        for name, at in (("cuda", "cuda"), ("mps", "cpu"), ("cpu", "cpu")):
            found = devices.to_float64(torch.ones(2, device=name))
            assert (found.device.type, found.dtype) == (at, torch.float64)


Module = SimpleNamespace


@pytest.mark.parametrize(
    ("module", "free", "peak", "name"),
    [
        (
            Module(mem_get_info=lambda d: (7, 9), memory_reserved=lambda d: 2, max_memory_allocated=lambda d: 5),
            9,
            5,
            None,
        ),
        (Module(mem_get_info=lambda d: (7, 9), get_device_name=lambda d: "a card"), 7, None, "a card"),
        (Module(recommended_max_memory=lambda: 11, driver_allocated_memory=lambda: 3), 11, 3, None),
        (Module(), None, None, None),
    ],
)
def test_a_device_is_asked_through_its_module(
    monkeypatch: pytest.MonkeyPatch, module: Any, free: int | None, peak: int | None, name: str | None
) -> None:
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    device = torch.device("xpu")
    assert (devices.free_memory(device), devices.peak_memory(device), devices.name(device)) == (free, peak, name)


def test_the_cpu_has_no_answers() -> None:
    cpu = torch.device("cpu")
    assert (devices.free_memory(cpu), devices.peak_memory(cpu), devices.name(cpu)) == (None, None, None)


@pytest.mark.parametrize(
    ("accelerator", "device", "backend", "index"),
    [
        (None, "auto", "gloo", None),
        ("cuda", "auto", "cpu:gloo,cuda:nccl", 3),
        ("cuda", "cpu", "gloo", None),
        ("cuda", "cuda:1", "cpu:gloo,cuda:nccl", None),  # the user has chosen
        ("xpu", "xpu", "cpu:gloo,xpu:xccl", 3),
    ],
)
def test_ranks_use_their_accelerator_and_its_backend(
    monkeypatch: pytest.MonkeyPatch, accelerator: str | None, device: str, backend: str, index: int | None
) -> None:
    found = None if accelerator is None else torch.device(accelerator)
    chosen: list[Any] = []
    monkeypatch.setattr(devices, "accelerator", lambda: found)
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    monkeypatch.setattr(dist, "init_process_group", lambda name, **options: chosen.append(name))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(distributed, "_store", lambda wait: None)
    for name, value in (("WORLD_SIZE", "8"), ("RANK", "7"), ("LOCAL_RANK", "3")):
        monkeypatch.setenv(name, value)
    with distributed.from_torchrun(device) as ranks:
        assert (ranks.rank, ranks.count) == (7, 8)
    assert chosen == ([] if index is None else [index]) + [backend]


def test_more_ranks_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "2"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    expected = (
        "rank 2 of this machine has no cuda device: there are 2; start at most 2 ranks on it, or give --device cpu"
    )
    with pytest.raises(UsageError, match=expected), distributed.from_torchrun("auto"):
        pass


def test_a_device_that_is_full_has_not_said_that_it_lacks_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    full = True

    def ones(*_: object, **options: object) -> torch.Tensor:
        if full:
            raise torch.OutOfMemoryError("full")
        return torch.zeros(())

    monkeypatch.setattr(torch, "ones", ones)
    devices.has_float64.cache_clear()
    with pytest.raises(torch.OutOfMemoryError):
        devices.has_float64(torch.device("xpu"))
    full = False
    assert devices.has_float64(torch.device("xpu"))
    devices.has_float64.cache_clear()
