"""The node of examples/comfyui, loaded and run as ComfyUI does: under inference mode, with a stand-in of its modules.

What ComfyUI does is from its sources (execution.py, nodes.py, comfy/utils.py, comfy/model_management.py): the folder is
loaded from its ``__init__.py`` under a name made of its path, with the module registered before it runs; nodes run in
``torch.inference_mode()``; an IMAGE is ``[B, H, W, C]`` in 0..1 and a MASK ``[B, H, W]``; Load Image gives a mask of
64 x 64 zeros for a picture without transparency; ``InterruptProcessingException`` leaves the node.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from support.pictures import TINY, as_tensor, samples
from torch import Tensor

import fastnst
from fastnst.config.ranges import CHOICES, RANGES, STARTS
from fastnst.config.settings import Settings

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "comfyui"

if not FOLDER.exists():
    pytest.skip("needs a checkout", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("weights_read_once")


class Interrupted(BaseException):
    """ComfyUI's InterruptProcessingException, which is a BaseException in recent versions."""


class Bar:
    """comfy.utils.ProgressBar, as far as a node sees it."""

    made: ClassVar[list[Bar]] = []

    def __init__(self, total: int, node_id: str | None = None) -> None:
        self.total, self.seen = total, []
        Bar.made.append(self)

    def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
        self.seen.append((value, total, preview))


class Comfy:
    """What a test tells the stand-in: after how many questions the run is cancelled."""

    stop_at = -1
    asked = 0


def load(name: str = "custom_nodes.fastnst") -> Any:
    name = name.replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> Comfy:
    state = Comfy()
    Bar.made.clear()

    def throw() -> None:
        state.asked += 1
        if state.asked == state.stop_at:
            raise Interrupted

    modules = {name: types.ModuleType(name) for name in ("comfy", "comfy.utils", "comfy.model_management")}
    modules["comfy.utils"].ProgressBar = Bar  # type: ignore[attr-defined]
    modules["comfy.model_management"].throw_exception_if_processing_interrupted = throw  # type: ignore[attr-defined]
    modules["comfy.model_management"].get_torch_device = lambda: torch.device("cpu")  # type: ignore[attr-defined]
    modules["comfy"].utils = modules["comfy.utils"]  # type: ignore[attr-defined]
    modules["comfy"].model_management = modules["comfy.model_management"]  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return state


@pytest.fixture
def module(comfy: Comfy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The node, with the shallow network of tests behind every preset."""
    loaded = load()
    real = Settings.from_preset

    class Shallow(Settings):
        @classmethod
        def from_preset(cls, preset: str = "default", **changes: Any) -> Settings:
            layers = {name: TINY[name] for name in ("content_layers", "style_layers", "precision")}
            return real(preset, **{**layers, **changes})

    monkeypatch.setattr(loaded, "Settings", Shallow)
    yield loaded
    del sys.modules["custom_nodes_x_fastnst"]


def batch(*seeds: int) -> Tensor:
    return torch.cat([as_tensor(samples(seed=seed)) for seed in seeds]).permute(0, 2, 3, 1)


def run(module: Any, node: Any = None, inputs: Any = None, **changes: Any) -> Tensor:
    """Execute a node with its default widgets but for ``changes``, as ComfyUI does."""
    node = node or module.NODE_CLASS_MAPPINGS["FastnstStyleTransfer"]()
    required = type(node).INPUT_TYPES()["required"]
    widgets = {name: options["default"] for name, (_, options) in required.items() if "default" in options}
    small = {"size": 48, "steps": 3, "scales": 1}
    with torch.inference_mode():
        pictures = {"content": batch(0).clone(), "style": batch(2).clone()}
        pictures = {**pictures, **{name: value.clone() for name, value in (inputs or {}).items()}}
        (image,) = getattr(node, node.FUNCTION)(**{**widgets, **small, **changes}, **pictures)
    assert isinstance(image, Tensor)
    return image


def expected(content: int = 0, styles: tuple[int, ...] = (2,), masks: Any = (), **changes: Any) -> Tensor:
    """The same run by fastnst.stylize, outside of inference mode."""
    settings = {name: TINY[name] for name in ("content_layers", "style_layers", "precision")}
    settings |= {"size": 48, "steps": 3, "scales": 1, "device": "cpu", **changes}
    pictures = [as_tensor(samples(seed=seed)) for seed in styles]
    return fastnst.stylize(as_tensor(samples(seed=content)), pictures, masks=masks, **settings).image


def test_widgets_are_described_by_the_settings(module: Any) -> None:
    inputs = module.StyleTransfer.INPUT_TYPES()
    defaults = Settings.from_preset()
    for name in module.WIDGETS:
        kind, options = inputs["required"][name]
        assert options["default"] == getattr(defaults, name)
        assert options["tooltip"].startswith(Settings.__dataclass_fields__[name].metadata["help"].replace("`", ""))
        if name == "init":
            assert kind == list(STARTS)
        elif name in CHOICES:
            assert kind == list(CHOICES[name])
        else:
            assert (options["min"], options["max"]) == (RANGES[name].least, RANGES[name].most)
            assert kind == ("INT" if RANGES[name].whole else "FLOAT")
            assert isinstance(options["default"], int if kind == "INT" else float)
    assert {name: kind for name, (kind, _) in inputs["optional"].items()} == dict.fromkeys(
        ("mask", "content_mask", "style_mask"), "MASK"
    )
    for preset in inputs["required"]["preset"][0]:
        assert Settings.from_preset(preset).content_layers


def test_a_picture_has_the_pixels_of_stylize(module: Any) -> None:
    image = run(module)
    assert image.shape == (1, 36, 48, 3)
    assert torch.equal(image.permute(0, 3, 1, 2), expected())


def test_a_widget_overrides_the_preset_and_others_are_left_to_it(module: Any) -> None:
    image = run(module, preset="gatys", tv_weight=0.5)
    found = expected(preset="gatys", tv_weight=0.5).permute(0, 2, 3, 1)
    assert torch.equal(image, found)


def test_a_batch_is_styled_one_by_one_in_a_blend_of_all_styles(module: Any) -> None:
    image = run(module, inputs={"content": batch(0, 1, 4), "style": batch(2, 3)})
    assert image.shape == (3, 36, 48, 3)
    for made, seed in zip(image.permute(0, 3, 1, 2), (0, 1, 4), strict=True):
        assert torch.equal(made[None], expected(seed, (2, 3)))
    (bar,) = Bar.made
    values = [value for value, _, _ in bar.seen]
    assert values == sorted(values)
    assert len(values) == 3 * 3
    assert (values[-1], bar.total) == (3000, 3000)


def test_masks_of_another_size_are_stretched(module: Any) -> None:
    mask = torch.zeros(1, 10, 10)
    mask[:, :, 5:] = 1
    image = run(module, inputs={"mask": mask})
    stretched = torch.nn.functional.interpolate(mask[None], (72, 96), mode="bilinear")[0]
    assert torch.equal(image.permute(0, 3, 1, 2), expected(masks=[stretched]))
    assert not torch.equal(image.permute(0, 3, 1, 2), expected())


def test_each_content_of_a_batch_has_its_mask(module: Any) -> None:
    left = torch.zeros(72, 96)
    left[:, :48] = 1
    both = run(module, inputs={"content": batch(0, 0), "mask": torch.stack((left, 1 - left))})
    assert not torch.equal(both[0], both[1])
    assert torch.equal(both[:1].permute(0, 3, 1, 2), expected(masks=[left[None]]))
    with pytest.raises(ValueError, match="mask: 2 masks for 1 images"):
        run(module, inputs={"mask": torch.ones(2, 72, 96)})


def test_the_empty_mask_of_load_image_is_one_clear_error(module: Any) -> None:
    with pytest.raises(fastnst.UsageError, match="has no pixel above zero"):
        run(module, inputs={"mask": torch.zeros(1, 64, 64)})


def test_content_and_style_masks_are_used(module: Any) -> None:
    plain = run(module)
    half = torch.zeros(1, 72, 96)
    half[:, :36] = 1
    for name in ("content_mask", "style_mask"):
        assert (run(module, inputs={name: half}) - plain).abs().max() > 1e-3
        # A white mask changes nothing but the order of sums.
        torch.testing.assert_close(run(module, inputs={name: torch.ones(1, 8, 8)}), plain, rtol=0, atol=1e-4)


def test_a_cancelled_run_ends_at_the_next_step(module: Any, comfy: Comfy) -> None:
    comfy.stop_at = 3  # before the picture, and after each step
    with pytest.raises(Interrupted):
        run(module, steps=50)
    (bar,) = Bar.made
    assert len(bar.seen) == 1
    comfy.stop_at = -1
    assert torch.equal(run(module).permute(0, 3, 1, 2), expected())


def test_a_node_keeps_its_network_until_settings_change(module: Any) -> None:
    node = module.StyleTransfer()
    run(module, node)
    first = node._stylizer
    run(module, node)
    assert node._stylizer is first
    run(module, node, steps=2)
    assert node._stylizer is not first


def test_values_a_little_outside_and_transparency_are_dropped(module: Any) -> None:
    content = torch.cat((batch(0) * 1.02 - 0.01, torch.rand(1, 72, 96, 1)), 3)
    assert run(module, inputs={"content": content}).shape == (1, 36, 48, 3)


def test_previews_are_pictures_of_the_run(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(0, 1000, 2))
    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: float(next(times))))
    monkeypatch.setattr(module, "PREVIEW_SHARE", 1.0)
    run(module)
    previews = [preview for _, _, preview in Bar.made[0].seen if preview is not None]
    assert [(kind, image.size, side) for kind, image, side in previews] == [("JPEG", (48, 36), 512)] * len(previews)
    assert previews


def test_without_comfyui_the_node_runs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "comfy", None)
    module = load("alone")
    try:
        assert module.model_management is None
        assert module._device() == "auto"
    finally:
        del sys.modules["alone"]
