"""Routes of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Response
from fastapi.responses import FileResponse

from fastnst.config.toml import to_toml
from fastnst.studio import job as records
from fastnst.studio.job import LIVE, RESULTS, THUMBNAIL
from fastnst.studio.models import Id, Job, JobChange, Jobs, RunRequest, Trace
from fastnst.studio.runner import Running
from fastnst.studio.services import REFUSALS, Guest, Services, Shared, files_of, find_run
from fastnst.studio.steering import check_live, checked
from fastnst.studio.store import Visitor

router = APIRouter(prefix="/api/jobs", responses=REFUSALS)
_TYPES = {"png": "image/png", "tiff": "image/tiff", "jpeg": "image/jpeg"}
_PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}}}


def shown(shared: Services, run: Running) -> Job:
    return run.job.public(shared.runner.position(run))


@router.post("", status_code=201)
def submit(asked: RunRequest, shared: Shared, guest: Guest) -> Job:
    """Queue a run. Its settings are checked against its pictures and the network first."""
    return _queue(asked, shared, guest)


def _queue(asked: RunRequest, shared: Services, guest: Visitor) -> Job:
    run = files_of(guest, asked)
    shared.check_settings(run["settings"])
    shared.inspector.plan(run, False)
    title = asked.title.strip() or _title(guest, asked)
    return shown(shared, shared.runner.submit(guest, {**asked.model_dump(), "title": title}))


def _title(guest: Visitor, asked: RunRequest) -> str:
    found = [guest.picture(one) or {} for one in (asked.content, *asked.styles)]
    content, *styles = [Path(one.get("name", "picture")).stem for one in found]
    return f"{content} in the style of {', '.join(styles)}"[:200]


@router.get("")
def jobs(shared: Shared, guest: Guest, limit: Annotated[int, Query(ge=1, le=2000)] = 200) -> Jobs:
    """The visitor's runs, newest first."""
    return Jobs(jobs=[shown(shared, run) for run in shared.runner.all(guest)[:limit]])


@router.get("/{id}")
def job(id: Id, shared: Shared, guest: Guest) -> Job:
    """A run."""
    return shown(shared, find_run(shared, guest, id))


@router.patch("/{id}")
def change(id: Id, asked: JobChange, shared: Shared, guest: Guest) -> Job:
    """Change the title or settings of a run. One that has begun continues from its picture with them."""
    run = find_run(shared, guest, id)
    if asked.settings:
        if run.job.step or run.job.state == "running":
            check_live(asked.settings)
        shared.check_settings({**run.job.texts, **asked.settings})
        shared.runner.change(run, asked.settings)
    if asked.title is not None and asked.title.strip():
        shared.runner.rename(run, asked.title.strip())
    return shown(shared, run)


@router.delete("/{id}", status_code=204, response_class=Response)
def delete(id: Id, shared: Shared, guest: Guest) -> None:
    """End a run, and remove it with its pictures."""
    shared.runner.delete(find_run(shared, guest, id))


@router.post("/{id}/pause")
def pause(id: Id, shared: Shared, guest: Guest) -> Job:
    """Save the state of a run and free its memory. A run that waits leaves the queue."""
    run = find_run(shared, guest, id)
    shared.runner.pause(run)
    return shown(shared, run)


@router.post("/{id}/resume")
def resume(id: Id, shared: Shared, guest: Guest) -> Job:
    """Continue a run that is paused or has failed."""
    run = find_run(shared, guest, id)
    shared.runner.resume(run)
    return shown(shared, run)


@router.post("/{id}/stop")
def stop(id: Id, shared: Shared, guest: Guest) -> Job:
    """End a run; its picture so far becomes the result."""
    run = find_run(shared, guest, id)
    shared.runner.keep(run)
    return shown(shared, run)


@router.post("/{id}/again", status_code=201)
def again(id: Id, shared: Shared, guest: Guest) -> Job:
    """Queue a run with the same pictures and settings."""
    return _queue(RunRequest(**records.again(find_run(shared, guest, id).job)), shared, guest)


@router.get("/{id}/trace")
def trace(id: Id, shared: Shared, guest: Guest, start: Annotated[int, Query(ge=0, le=10**9)] = 0) -> Trace:
    """The losses of each step."""
    return Trace(**find_run(shared, guest, id).trace.since(start))


@router.get("/{id}/live", response_class=Response, responses=_PICTURE)
def live(id: Id, shared: Shared, guest: Guest, frame: Annotated[int, Query(ge=0)] = 0) -> Response:
    """The picture as it is now, at most 1024 pixels on its longer side. ``frame`` only defeats caches."""
    return _small(find_run(shared, guest, id), LIVE)


@router.get("/{id}/thumbnail", response_class=Response, responses=_PICTURE)
def thumbnail(id: Id, shared: Shared, guest: Guest) -> Response:
    """A small picture of the result, or of the run as it is now."""
    run = find_run(shared, guest, id)
    return _small(run, THUMBNAIL if run.job.has_result else LIVE)


@router.get(
    "/{id}/result",
    response_class=FileResponse,
    responses={200: {"content": {kind: {} for kind in _TYPES.values()}}},
)
def result(
    id: Id,
    shared: Shared,
    guest: Guest,
    format: Literal["png", "tiff", "jpeg"] = "png",
    download: bool = False,
) -> FileResponse:
    """The picture in full size, with its settings inside; TIFF has 16 bits per channel."""
    run = find_run(shared, guest, id)
    if not run.job.has_result:
        raise HTTPException(404, f"the run is {run.job.state} and has no result yet")
    name = f"{run.job.title}{Path(RESULTS[format]).suffix}" if download else None
    return _file(run, RESULTS[format], _TYPES[format], name)


@router.get("/{id}/settings.toml", response_class=Response, responses={200: {"content": {"application/toml": {}}}})
def settings(id: Id, shared: Shared, guest: Guest) -> Response:
    """The settings, as ``fastnst stylize --settings`` reads them."""
    text = to_toml(checked(find_run(shared, guest, id).job.texts))
    disposition = 'attachment; filename="settings.toml"'
    return Response(text, media_type="application/toml", headers={"content-disposition": disposition})


def _small(run: Running, name: str) -> Response:
    """A picture that may be replaced at any moment, which is therefore read at once."""
    try:
        return Response((run.folder / name).read_bytes(), media_type="image/jpeg")
    except FileNotFoundError:
        raise HTTPException(404, "there is no picture yet") from None


def _file(run: Running, name: str, kind: str, shown_name: str | None = None) -> FileResponse:
    path = run.folder / name
    if not path.is_file():
        raise HTTPException(404, "there is no picture yet")
    return FileResponse(path, media_type=kind, filename=shown_name)
