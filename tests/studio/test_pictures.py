"""Uploads: what is said of a picture, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from clients import Studio, picture
from PIL import Image, ImageCms


def upload(studio: Studio, data: bytes, name: str = "a.png") -> dict[str, object]:
    answer = studio.post("/api/pictures", files={"file": (name, data)})
    assert answer.status_code == 201, answer.text
    found: dict[str, object] = answer.json()
    return found


def file(image: Image.Image, **save: object) -> bytes:
    target = io.BytesIO()
    image.save(target, **{"format": "PNG", **save})  # type: ignore[arg-type]
    return target.getvalue()


def test_a_plain_picture(shared: Studio) -> None:
    found = upload(shared, picture(3, 80, 60), "my photo.png")
    assert (found["name"], found["width"], found["height"], found["format"]) == ("my photo.png", 80, 60, "PNG")
    assert (found["notes"], found["has_alpha"], found["settings"]) == ([], False, None)
    preview = Image.open(io.BytesIO(shared.get(f"/api/pictures/{found['id']}/preview").content))
    assert (np.asarray(preview) == np.asarray(Image.open(io.BytesIO(picture(3, 80, 60))))).all()


def test_notes_say_what_reading_changes(shared: Studio) -> None:
    base = Image.open(io.BytesIO(picture()))
    exif = Image.Exif()
    exif[274] = 6
    turned = upload(shared, file(base, format="JPEG", exif=exif), "a.jpg")
    assert turned["notes"] == ["turned as its EXIF data say"]
    assert (turned["width"], turned["height"]) == (48, 64)
    assert "16 bits per channel" in upload(shared, file(Image.new("I;16", (64, 48))))["notes"]
    half = base.convert("RGBA")
    half.putalpha(128)
    clear = upload(shared, file(half))
    assert clear["has_alpha"]
    assert clear["notes"] == ["has transparency"]
    assert upload(shared, file(base.convert("CMYK"), format="TIFF"), "a.tif")["notes"] == [
        "converted from CMYK to sRGB"
    ]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert upload(shared, file(base, icc_profile=srgb))["notes"] == []
    frames = file(base, format="GIF", save_all=True, append_images=[Image.open(io.BytesIO(picture(9)))])
    assert upload(shared, frames, "a.gif")["notes"][0] == "the first of 2 frames"


def test_the_preview_of_a_large_picture_is_small(shared: Studio) -> None:
    found = upload(shared, picture(1, 3000, 1500))
    preview = Image.open(io.BytesIO(shared.get(f"/api/pictures/{found['id']}/preview").content))
    assert (found["width"], preview.size) == (3000, (1024, 512))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello", "not an image"),
        (picture()[:60], "a.png"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    ],
)
def test_what_is_no_picture(studio: Studio, data: bytes, message: str) -> None:
    answer = studio.post("/api/pictures", files={"file": ("a.png", data)})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error.startswith("a.png: ")
    assert message in error
    assert "visitors" not in error  # no path of the machine
    assert "\n" not in error
    assert not list(Path(studio.app.state.services.store.folder).glob("visitors/*/pictures/*"))


def test_a_limit_of_pixels(tmp_path: Path) -> None:
    with Studio(tmp_path, max_pixels=1000) as studio:
        answer = studio.post("/api/pictures", files={"file": ("a.png", picture())})
        assert answer.status_code == 422
        assert "above the limit of 1000" in answer.json()["error"]


def test_demo_pictures_are_added_once(studio: Studio) -> None:
    first, second = (studio.post("/api/demo").json() for _ in range(2))
    assert first == second
    names = [one["name"] for one in studio.get("/api/pictures").json()["pictures"]]
    assert sorted(names) == ["demo_painting.jpg", "demo_photo.jpg"]


def test_masks_are_not_in_the_list(studio: Studio) -> None:
    mask = studio.add(kind="mask")
    assert studio.get("/api/pictures").json() == {"pictures": []}
    assert studio.get(f"/api/pictures/{mask}").json()["kind"] == "mask"
    assert studio.post("/api/pictures", files={"file": ("a", picture())}, data={"kind": "film"}).status_code == 422


def test_masks_reach_the_run(studio: Studio) -> None:
    """Where the mask of the only style is black the picture stays the content."""
    half = np.zeros((48, 64), np.uint8)
    half[:, 32:] = 255
    run = studio.run_of(steps="12", tv_weight="0", content_weight="0.01")
    run["masks"] = [studio.add(file(Image.fromarray(half)), "mask.png", "mask")]
    identifier = studio.post("/api/jobs", json=run).json()["id"]
    studio.wait(identifier, "done")
    change = np.abs(studio.pixels(identifier).astype(int) - np.asarray(Image.open(io.BytesIO(picture(1)))))
    assert change[:, :16].mean() < change[:, 48:].mean() / 3


@pytest.mark.parametrize("part", ["masks", "style_masks"])
def test_masks_of_another_number(shared: Studio, part: str) -> None:
    answer = shared.post("/api/plan", json={**shared.run_of(), part: [None, None]})
    assert answer.status_code == 422
    assert answer.json()["error"] == f"{part}: 2 for 1 styles; expected one for each, or none"


def test_plans(shared: Studio) -> None:
    run = shared.run_of(size="128", scales="2", min_shorter_side="32")
    plan = shared.post("/api/plan", json=run).json()
    assert plan["scales"] == [[64, 48], [128, 96]]
    assert plan["size"] == [128, 96]
    assert plan["seconds"] > 0
    assert plan["memory"] > 2**20
    longer = shared.post("/api/plan", json={**run, "settings": {**run["settings"], "steps": "400"}}).json()
    assert longer["seconds"] > 10 * plan["seconds"]
    answer = shared.post("/api/plan", json={**run, "settings": {"size": "many"}})
    assert (answer.status_code, answer.json()["setting"]) == (422, "size")


def test_the_description_of_settings_is_that_of_the_command_line(shared: Studio) -> None:
    found = shared.get("/api/settings").json()
    from fastnst.cli.setting_options import _METAVARS
    from fastnst.config.settings import Settings

    fields = Settings.__dataclass_fields__
    grouped = [name for group in found["groups"] for name in group["settings"]]
    assert set(_METAVARS) - {"snapshot_every", "max_pixels"} <= set(grouped)
    for name in grouped:
        assert found["settings"][name]["help"] == fields[name].metadata["help"]
    assert found["presets"]["gatys"]["steps"] == str(Settings.from_preset("gatys").steps)
    assert set(found["simple"]) <= set(grouped)
    assert found["settings"]["pooling"]["choices"] == ["max", "average", "l2"]
    assert "nnst" in found["settings"]["style_loss"]["suggestions"]
