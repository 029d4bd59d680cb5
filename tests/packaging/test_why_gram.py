"""What docs/explanation/why_gram.md says is so: the claim, its table, its example and its pictures."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from torch import Tensor

from fastnst import VGG, ops
from fastnst.config.presets import STYLE_LAYERS
from fastnst.weights import Weights
from tools import gram_measurements, why_gram

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "why_gram.md"
IMAGES = ROOT / "docs" / "images"

if not PAGE.exists():
    pytest.skip("needs a checkout", allow_module_level=True)


@pytest.fixture(scope="module")
def rows() -> list[Any]:
    measured: list[Any] = gram_measurements.measure()
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
    mixed = gram_measurements.shuffled(x, seed)
    assert not torch.equal(mixed, x)
    torch.testing.assert_close(ops.gram(mixed), ops.gram(x), rtol=1e-14, atol=0)
    assert ops.style_loss(mixed, ops.gram(x)) < 1e-28 * ops.gram(x).square().sum()


def test_gram_changes_if_each_channel_has_an_order_of_its_own() -> None:
    x = random_features(0)
    mixed = torch.cat([gram_measurements.shuffled(channel, i) for i, channel in enumerate(x.split(1, dim=1))], dim=1)
    assert ops.style_loss(mixed, ops.gram(x)) > 1e-3 * ops.gram(x).square().sum()


def test_the_five_layers_are_measured_in_order(rows: list[Any]) -> None:
    assert tuple(row.layer for row in rows) == STYLE_LAYERS


@pytest.mark.parametrize("index", range(5), ids=STYLE_LAYERS)
def test_shuffled_features_of_the_photograph_have_no_style_loss(rows: list[Any], index: int) -> None:
    assert 0 <= rows[index].style < gram_measurements.NEGLIGIBLE


@pytest.mark.parametrize("index", range(5), ids=STYLE_LAYERS)
def test_shuffled_features_of_the_photograph_have_a_large_content_loss(rows: list[Any], index: int) -> None:
    assert 0.5 < rows[index].content < 1


@pytest.mark.parametrize("index", range(5), ids=STYLE_LAYERS)
def test_shuffled_pixels_of_the_photograph_have_a_style_loss(rows: list[Any], index: int) -> None:
    assert rows[index].pixels > 0.3


@pytest.mark.parametrize("layer", STYLE_LAYERS)
def test_the_receptive_field_is_the_patch_that_moves_a_feature(layer: str) -> None:
    """With one channel and every weight 1, the gradient of one feature covers the patch it depends on."""
    ones = {
        f"conv{block}_{i}": (torch.ones(1, 3 if block == i == 1 else 1, 3, 3), torch.ones(1))
        for block in range(1, 6)
        for i in range(1, 5)
    }
    given = Weights("vgg19", ones, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "ones", "", "")
    image = torch.ones(1, 3, 480, 480, requires_grad=True)
    features = VGG(given, [layer], pooling="average").features(image)[layer]
    center = features.shape[-1] // 2
    (gradient,) = torch.autograd.grad(features[0, 0, center, center], image)
    touched = gradient[0, 0].nonzero()
    assert (touched.amax(0) - touched.amin(0) + 1).tolist() == [gram_measurements.receptive_field(layer)] * 2


def test_the_table_of_the_page_is_what_the_script_prints(rows: list[Any], page: str) -> None:
    """Text and bounds exactly; ratios to within one of their last digit, which may round either way elsewhere."""
    written, printed = cells(page), cells(gram_measurements.table(rows))
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
    assert f"](../images/{name})" in page
    path = IMAGES / name
    assert path.stat().st_size < 300_000
    with PIL.Image.open(path) as image:
        assert 1200 <= image.width <= 1600


def test_the_script_draws_the_first_picture(rows: list[Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "fastnst[plot]"')
    why_gram.draw_shuffle(tmp_path / "new" / "why_gram.jpg", rows)
    with (
        PIL.Image.open(tmp_path / "new" / "why_gram.jpg") as drawn,
        PIL.Image.open(IMAGES / "why_gram.jpg") as shown,
    ):
        assert drawn.size == shown.size
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["why_gram.jpg"]


def test_a_texture_comes_nearer_to_the_gram_matrices_than_the_noise_it_starts_from() -> None:
    painting = gram_measurements.shipped("demo_painting", 64)
    layers = {"relu1_1": 1.0}
    first, later = (gram_measurements.texture(painting, layers, steps) for steps in (1, 20))
    assert later.shape == painting.shape
    network = VGG(gram_measurements.weights.load(), layers)
    loss = gram_measurements.GramLoss(network.features(painting * 255)["relu1_1"])
    with torch.no_grad():
        early, late = (float(loss(network.features(image * 255)["relu1_1"])) for image in (first, later))
    assert late < early / 10
