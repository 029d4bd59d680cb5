"""Routes of settings and pictures."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import FileResponse

from fastnst import __version__
from fastnst.config.description import GROUPS, as_text, describe_settings
from fastnst.config.presets import PRESETS
from fastnst.config.settings import Settings
from fastnst.studio.guard import UPLOAD_BYTES
from fastnst.studio.models import (
    MOST_STYLES,
    Demo,
    Group,
    Id,
    Limits,
    Me,
    Picture,
    Pictures,
    Plan,
    RunRequest,
    Setting,
    SettingsDescription,
)
from fastnst.studio.services import REFUSALS, Guest, Shared, files_of, find_picture
from fastnst.studio.steering import LIVE
from fastnst.studio.uploads import PREVIEW, add_picture, demo_pictures

SIMPLE = ("preset", "size", "steps", "content_weight", "style_weight", "keep_color", "seed")
HIDDEN = ("snapshot_every", "max_pixels")
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}
router = APIRouter(prefix="/api", responses=REFUSALS)


def shown(record: dict[str, Any]) -> Picture:
    return Picture(**{name: value for name, value in record.items() if name != "file"})


@router.get("/me")
def me(request: Request, shared: Shared) -> Me:
    """A link to the visitor's gallery."""
    return Me(link=shared.access.link(request.state.key, request.headers.get("host")))


@router.get("/settings")
def settings(shared: Shared) -> SettingsDescription:
    """All settings with their groups, help texts, ranges and defaults, and the presets."""
    found = describe_settings(shared.names.closed, shared.names.known)
    presets = {name: Settings.from_preset(name) for name in PRESETS}
    return SettingsDescription(
        version=__version__,
        groups=[
            Group(title=title, settings=[name for name in names if name not in HIDDEN])
            for title, names in GROUPS.items()
        ],
        settings={
            name: Setting(**dataclasses.asdict(one), live=name in LIVE)
            for name, one in found.items()
            if name not in HIDDEN
        },
        presets={
            preset: {name: as_text(name, getattr(values, name)) for name in found if name not in HIDDEN}
            for preset, values in presets.items()
        },
        simple=list(SIMPLE),
        limits=Limits(upload_bytes=UPLOAD_BYTES, styles=MOST_STYLES, formats=list(shared.names.suffixes)),
    )


@router.post("/pictures", status_code=201)
def upload(
    shared: Shared,
    guest: Guest,
    file: UploadFile,
    kind: Annotated[Literal["picture", "mask"], Form()] = "picture",
) -> Picture:
    """Add a picture. It is decoded at once, as a run would."""
    return shown(add_picture(guest, shared.inspector, file.filename or "picture", file.file, kind))


@router.get("/pictures")
def pictures(guest: Guest) -> Pictures:
    """The visitor's pictures without masks, newest first."""
    return Pictures(pictures=[shown(one) for one in guest.all_pictures() if one["kind"] == "picture"])


@router.get("/pictures/{id}")
def picture(id: Id, guest: Guest) -> Picture:
    """What is known of a picture."""
    return shown(find_picture(guest, id))


@router.get("/pictures/{id}/preview", response_class=FileResponse, responses={200: {"content": {"image/png": {}}}})
def preview(id: Id, guest: Guest) -> FileResponse:
    """The picture as fastnst sees it, at most 1024 pixels on its longer side."""
    find_picture(guest, id)
    return FileResponse(guest.pictures / id / PREVIEW, media_type="image/png", headers=FOREVER)


@router.delete("/pictures/{id}", status_code=204, response_class=Response)
def delete_picture(id: Id, shared: Shared, guest: Guest) -> None:
    """Remove a picture that no unfinished run reads."""
    find_picture(guest, id)
    if shared.runner.uses(guest, id):
        raise HTTPException(409, "a run that has not ended reads this picture; stop or delete the run first")
    guest.remove_picture(id)


@router.post("/demo")
def demo(shared: Shared, guest: Guest) -> Demo:
    """Add the pictures that come with fastnst to the visitor's."""
    content, style = demo_pictures(guest, shared.inspector)
    return Demo(content=shown(content), styles=[shown(style)])


@router.post("/plan")
def plan(asked: RunRequest, shared: Shared, guest: Guest) -> Plan:
    """The time and memory that a run would take. The time is measured by a trial, unless a run is going on."""
    run = files_of(guest, asked)
    shared.check_settings(run["settings"])
    return Plan(**shared.plan(guest, run))
