"""What docs/why_gram.md says is so: the claim, its table, its example and its pictures."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import PIL.Image
import pytest
import torch
from torch import Tensor

from fastnst import VGG, ops
from fastnst.presets import STYLE_LAYERS
from fastnst.weights import Weights

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "why_gram.md"
SCRIPT = ROOT / "tools" / "why_gram.py"

if not (PAGE.exists() and SCRIPT.exists()):
    pytest.skip("needs a checkout", allow_module_level=True)


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("why_gram", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


why_gram = load_script()


@pytest.fixture(scope="module")
def rows() -> list[Any]:
    measured: list[Any] = why_gram.measure()
    return measured


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def random_features(seed: int) -> Tensor:
    return torch.randn(1, 12, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).relu()


def cells(table: str) -> list[list[str]]:
    """The lines of every Markdown table in a text, without those that only rule."""
    lines = [line for line in table.splitlines() if line.startswith("|") and not line.startswith("|--")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("seed", range(3))
def test_gram_is_the_same_for_any_order_of_positions(seed: int) -> None:
    x = random_features(seed)
    mixed = why_gram.shuffled(x, seed)
    assert not torch.equal(mixed, x)
    torch.testing.assert_close(ops.gram(mixed), ops.gram(x), rtol=1e-14, atol=0)
    assert ops.style_loss(mixed, ops.gram(x)) < 1e-28 * ops.gram(x).square().sum()


def test_gram_changes_if_each_channel_has_an_order_of_its_own() -> None:
    x = random_features(0)
    mixed = torch.cat([why_gram.shuffled(channel, i) for i, channel in enumerate(x.split(1, dim=1))], dim=1)
    assert ops.style_loss(mixed, ops.gram(x)) > 1e-3 * ops.gram(x).square().sum()


def test_the_five_layers_are_measured_in_order(rows: list[Any]) -> None:
    assert tuple(row.layer for row in rows) == STYLE_LAYERS


@pytest.mark.parametrize("index", range(5), ids=STYLE_LAYERS)
def test_shuffled_features_of_the_photograph_have_no_style_loss(rows: list[Any], index: int) -> None:
    assert 0 <= rows[index].style < why_gram.NEGLIGIBLE


@pytest.mark.parametrize("index", range(5), ids=STYLE_LAYERS)
def test_shuffled_features_of_the_photograph_have_a_large_content_loss(rows: list[Any], index: int) -> None:
    assert 0.5 < rows[index].content < 1


@pytest.mark.parametrize("index", range(5), ids=STYLE_LAYERS)
def test_shuffled_pixels_of_the_photograph_have_a_style_loss(rows: list[Any], index: int) -> None:
    assert rows[index].pixels > 0.3


@pytest.mark.parametrize("layer", STYLE_LAYERS)
def test_field_of_view_is_the_patch_that_moves_a_feature(layer: str) -> None:
    """With one channel and every weight 1, the gradient of one feature covers the patch it depends on."""
    ones = {
        f"conv{block}_{i}": (torch.ones(1, 3 if block == i == 1 else 1, 3, 3), torch.ones(1))
        for block in range(1, 6)
        for i in range(1, 5)
    }
    given = Weights("vgg19", ones, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "ones", "", "")
    image = torch.ones(1, 3, 480, 480, requires_grad=True)
    features = VGG(given, [layer], pooling="average").features(image)[layer]
    centre = features.shape[-1] // 2
    (gradient,) = torch.autograd.grad(features[0, 0, centre, centre], image)
    touched = gradient[0, 0].nonzero()
    assert (touched.amax(0) - touched.amin(0) + 1).tolist() == [why_gram.field_of_view(layer)] * 2


def test_the_table_of_the_page_is_what_the_script_prints(rows: list[Any], page: str) -> None:
    """Text and bounds exactly; ratios to within one of their last digit, which may round either way elsewhere."""
    written, printed = cells(page), cells(why_gram.table(rows))
    assert [len(line) for line in written] == [len(line) for line in printed]
    for ours, theirs in zip(written, printed, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            if re.fullmatch(r"\d+\.\d\d", a):
                assert float(b) == pytest.approx(float(a), abs=0.011)
            else:
                assert a == b


def test_the_example_of_the_page_prints_what_the_page_says(page: str) -> None:
    found = re.search(r"```python\n(.*?)```.*?```(?:text)?\n(.*?)```", page, flags=re.DOTALL)
    assert found is not None
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(found[1], str(PAGE), "exec"), {})
    assert output.getvalue() == found[2]


@pytest.mark.parametrize("name", ["why_gram.jpg", "why_gram_textures.jpg"])
def test_the_page_shows_pictures_that_are_here_and_small(page: str, name: str) -> None:
    assert f"](images/{name})" in page
    path = PAGE.parent / "images" / name
    assert path.stat().st_size < 300_000
    with PIL.Image.open(path) as image:
        assert 1200 <= image.width <= 1600


def test_the_script_draws_the_first_picture(rows: list[Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "fastnst[plot]"')
    why_gram.draw_shuffle(tmp_path / "new" / "why_gram.jpg", rows)
    with (
        PIL.Image.open(tmp_path / "new" / "why_gram.jpg") as drawn,
        PIL.Image.open(PAGE.parent / "images" / "why_gram.jpg") as shown,
    ):
        assert drawn.size == shown.size
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["why_gram.jpg"]


def test_a_texture_comes_nearer_to_the_gram_matrices_than_the_noise_it_starts_from() -> None:
    painting = why_gram.shipped("demo_painting", 64)
    layers = {"relu1_1": 1.0}
    first, later = (why_gram.texture(painting, layers, steps) for steps in (1, 20))
    assert later.shape == painting.shape
    network = VGG(why_gram.weights.load(), layers)
    loss = why_gram.StyleLoss(network.features(painting * 255)["relu1_1"])
    with torch.no_grad():
        early, late = (float(loss(network.features(image * 255)["relu1_1"])) for image in (first, later))
    assert late < early / 10
