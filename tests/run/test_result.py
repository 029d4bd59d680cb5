"""A result as other programs take it: Pillow, NumPy, file objects, and what a notebook shows.

The oracles are Pillow, NumPy, ``html.parser``, and files saved by path.
"""

from __future__ import annotations

import base64
import html.parser
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.pictures import samples, tiny

import fastnst
from fastnst import images
from fastnst.config.provenance import Input
from fastnst.config.settings import Settings
from fastnst.objective.protocol import Losses
from fastnst.run.result import Result
from fastnst.run.showing import SHOWN_SIDE, duration
from fastnst.run.stylizer import stylize

pytestmark = pytest.mark.usefixtures("weights_read_once")

NASTY = "<img src=x onerror=alert(1)>\"' &amp;\u202e\n.png"


def result(image: torch.Tensor | None = None, **changes: Any) -> Result:
    values: dict[str, Any] = {
        "image": torch.rand(1, 3, 12, 16) if image is None else image,
        "alpha": None,
        "settings": Settings(),
        "trace": ((losses(5e4), losses(1234.5)),),
        "seconds": 12.3,
        "stopped": None,
    }
    return Result(**{**values, **changes})


def losses(total: float) -> Losses:
    return Losses(total=total)


class Page(html.parser.HTMLParser):
    """The tags and the text of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(made: Result) -> tuple[Page, dict[str, Any]]:
    bundle = made._repr_mimebundle_()
    return Page(bundle["text/html"]), bundle


@pytest.mark.parametrize("with_alpha", [False, True])
def test_pillow_and_numpy_have_the_values_of_the_picture(tmp_path: Path, with_alpha: bool) -> None:
    alpha = torch.rand(1, 1, 12, 16) if with_alpha else None
    made = result(alpha=alpha)
    planes = made.image if alpha is None else torch.cat((made.image, alpha), 1)
    array, image = made.to_numpy(), made.to_pil()
    assert (array.dtype, array.shape, array.flags.c_contiguous) == (np.float32, (12, 16, planes.shape[1]), True)
    np.testing.assert_array_equal(array, planes[0].permute(1, 2, 0).numpy())
    assert image.mode == ("RGBA" if with_alpha else "RGB")
    with Image.open(made.save(tmp_path / "a.png", with_settings=False)) as saved:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(saved))
    array[:] = 0
    assert made.image.any()
    again = images.load(made.to_numpy())
    assert torch.equal(again.pixels[..., -1:, -1:], made.image[..., -1:, -1:])


def test_values_outside_are_clamped_in_pillow() -> None:
    image = result(torch.tensor([-0.5, 0.5, 1.5]).view(1, 3, 1, 1).expand(1, 3, 2, 2)).to_pil()
    assert image.getpixel((0, 0)) == (0, 128, 255)


@pytest.mark.parametrize(("form", "suffix"), [("PNG", "png"), ("TIFF", "tif"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_a_file_object_gets_the_bytes_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    photo = images.save(tmp_path / "photo.png", torch.rand(1, 3, 64, 64))
    made = stylize(photo, samples(seed=2), settings=tiny(steps=1))
    file = io.BytesIO()
    made.save(file, format=form)
    path = made.save(f"out.{suffix}")
    assert file.getvalue() == path.read_bytes()
    stored = images.read_settings(file)
    assert stored is not None
    assert stored["steps"] == 1
    assert stored["files"]["content"]["name"] == "photo.png"  # type: ignore[index]
    assert fastnst.load_settings(path) == fastnst.load_settings(file) == fastnst.load_settings(file.getvalue())
    assert fastnst.load_settings(file) == made.settings
    with pytest.raises(fastnst.UsageError, match=r"^the file object: holds no settings of fastnst"):
        fastnst.load_settings(io.BytesIO(photo.read_bytes()))
    made.save(bare := io.BytesIO(), format=form, with_settings=False)
    assert images.read_settings(bare) is None


def test_a_file_object_learns_no_folder(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    photo = images.save(tmp_path / "private" / "photo.png", torch.rand(1, 3, 64, 64))
    file = io.BytesIO()
    stylize(photo, samples(seed=2), settings=tiny(steps=1)).save(file, format="PNG")
    assert b"private" not in file.getvalue()
    assert b"photo.png" in file.getvalue()


@pytest.mark.parametrize(
    ("bits", "form", "stored"), [(16, "PNG", 16), (None, "PNG", 8), (None, "TIFF", 16), (16, "JPEG", 8)]
)
def test_16_bits_are_kept_where_the_format_has_them(bits: int | None, form: str, stored: int) -> None:
    made = result(torch.rand(1, 3, 30, 30), bits=bits)
    file = io.BytesIO()
    made.save(file, format=form)
    found = (images.load(file).pixels.double() * 65535).round()
    assert bool((found % 257 == 0).all()) == (stored == 8)


def test_stylize_takes_a_file_object_bytes_and_a_pillow_image(tmp_path: Path) -> None:
    settings = tiny(steps=1)
    path = images.save(tmp_path / "a.png", torch.rand(1, 3, 64, 64))
    wanted = stylize(path, path, settings=settings).image
    data = path.read_bytes()
    with path.open("rb") as file, Image.open(path) as image:
        for content, style in ((io.BytesIO(data), data), (file, image), (image, io.BytesIO(data))):
            assert torch.equal(stylize(content, style, settings=settings).image, wanted)
    stylizer = fastnst.Stylizer(settings)
    assert torch.equal(stylizer.run(stylizer.load_scene(io.BytesIO(data), [data])).image, wanted)
    plan = fastnst.plan(io.BytesIO(data), data, settings=settings)
    assert [(scale.height, scale.width) for scale in plan.scales] == [(64, 64)]


def test_a_notebook_shows_the_picture_a_caption_and_a_description() -> None:
    inputs = {"content": Input(Path("/home/someone/photo.jpg"), ""), "style": Input(Path("a/wave.jpg"), "")}
    inputs["style_2"], inputs["style_mask"] = Input(Path("b/night.jpg"), ""), Input(Path("mask.png"), "")
    made = result(stopped="interrupt", inputs=inputs)
    page, bundle = shown(made)
    assert list(bundle) == ["text/html", "image/jpeg", "text/plain"]
    caption = "16 \u00d7 12 pixels, 2 steps, 12 s, loss 1234, stopped: interrupt"
    assert page.text == caption
    assert bundle["text/plain"] == f"<fastnst.Result: {caption}>"
    (_, attributes) = page.tags[1]
    assert attributes["alt"] == "photo.jpg in the style of wave.jpg, night.jpg"
    assert (attributes["width"], attributes["height"]) == ("16", "12")
    kind, _, data = str(attributes["src"]).partition(";base64,")
    assert kind == "data:image/jpeg"
    assert base64.b64decode(data) == bundle["image/jpeg"]
    pixels = np.asarray(Image.open(io.BytesIO(bundle["image/jpeg"])), np.float32) / 255
    assert np.abs(pixels - made.to_numpy()).mean() < 0.1
    assert "someone" not in bundle["text/html"]


def test_a_large_result_is_shown_smaller_and_with_its_alpha() -> None:
    page, bundle = shown(result(torch.rand(1, 3, 40, 3000), alpha=torch.rand(1, 1, 40, 3000), trace=()))
    image = Image.open(io.BytesIO(bundle["image/png"]))
    assert (image.mode, max(image.size)) == ("RGBA", SHOWN_SIDE)
    assert page.tags[1][1]["width"] == str(SHOWN_SIDE)
    assert page.text == "3000 \u00d7 40 pixels, 0 steps, 12 s"
    assert page.tags[1][1]["alt"] == "A picture in the style of another picture"


def test_names_of_files_are_text() -> None:
    page, bundle = shown(result(inputs={"content": Input(Path(NASTY), ""), "style": Input(Path("\udcff.png"), "")}))
    assert [tag for tag, _ in page.tags] == ["figure", "img", "figcaption"]
    assert set(page.tags[1][1]) == {"src", "alt", "width", "height", "style"}
    alt = page.tags[1][1]["alt"]
    assert alt is not None
    assert alt.startswith("<img src=x onerror=alert(1)>\"' &amp;\\u202e\\x0a.png in the style of \\udcff.png")
    bundle["text/html"].encode()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 s"), (0.42, "0.42 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1:00 min"), (7400, "2:03:20 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
