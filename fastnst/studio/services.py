"""What the routes share: the store, the queue, the inspector, and the visitor of a request."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, HTTPException, Request

from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.studio.guard import Access
from fastnst.studio.inspector import Inspector
from fastnst.studio.models import Problem, RunRequest
from fastnst.studio.runner import Runner, Running
from fastnst.studio.steering import checked
from fastnst.studio.store import Store, Visitor

if TYPE_CHECKING:
    from fastnst.studio.inspecting import Names

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The body cannot be read.",
        401: "The request has no valid key.",
        403: "The request comes from another site, or asks another host.",
        404: "There is no such picture or run.",
        409: "It makes no sense in the state of the run.",
        413: "The body is too large.",
        422: "A value is not valid; `setting` names the setting, if it is one.",
        507: "The disk is full.",
    }.items()
}


@dataclass
class Services:
    """See the module."""

    store: Store
    runner: Runner
    inspector: Inspector
    planner: Inspector
    access: Access
    _asked: dict[Visitor, object] = field(default_factory=dict)

    @cached_property
    def names(self) -> Names:
        """See :class:`fastnst.studio.inspecting.Names`."""
        return self.inspector.names()

    def check_settings(self, texts: dict[str, str]) -> Settings:
        """The settings of a run. Raises UsageError for values that are not valid, and for files of this machine."""
        settings = checked(texts)
        known = self.names.known["weights"]
        if settings.weights is not None and settings.weights not in known:
            raise UsageError(f"weights: expected {', '.join(known)}; the studio reads no file of this machine")
        return settings

    def plan(self, guest: Visitor, run: dict[str, Any]) -> dict[str, Any]:
        """The plan of a run. Of the plans that a visitor waits for, the last is made."""
        self._asked[guest] = ticket = object()
        return self.planner.plan(run, not self.runner.busy, lambda: self._asked[guest] is ticket)

    def close(self) -> None:
        self.runner.close()
        self.inspector.close()
        self.planner.close()


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


Shared = Annotated[Services, Depends(services)]


def visitor(request: Request, shared: Shared) -> Visitor:
    return shared.store.visitor(request.state.visitor)


Guest = Annotated[Visitor, Depends(visitor)]


def find_run(shared: Services, guest: Visitor, identifier: str) -> Running:
    """A run of the visitor; 404 for another."""
    run = shared.runner.find(guest, identifier)
    if run is None:
        raise HTTPException(404, "there is no such run")
    return run


def find_picture(guest: Visitor, identifier: str) -> dict[str, Any]:
    """The record of a picture of the visitor; 404 for another."""
    found = guest.picture(identifier)
    if found is None:
        raise HTTPException(404, "there is no such picture")
    return found


def files_of(guest: Visitor, asked: RunRequest) -> dict[str, Any]:
    """A request with the paths of its pictures. Raises UsageError for masks of another number than styles."""
    for name in ("masks", "style_masks"):
        count = len(getattr(asked, name))
        if count not in (0, len(asked.styles)):
            raise UsageError(f"{name}: {count} for {len(asked.styles)} styles; expected one for each, or none")

    def path(identifier: str | None) -> str | None:
        return (
            None if identifier is None else str(guest.pictures / identifier / find_picture(guest, identifier)["file"])
        )

    return {
        "content": path(asked.content),
        "styles": [path(one) for one in asked.styles],
        "masks": [path(one) for one in asked.masks],
        "style_masks": [path(one) for one in asked.style_masks],
        "content_mask": path(asked.content_mask),
        "settings": dict(asked.settings),
    }


def setting_of(message: str) -> str | None:
    """The setting that an error is about: its first word, or the one after ``unknown``."""
    words = [word.strip(":,'") for word in message.split()[:2]]
    names = {one.name for one in dataclasses.fields(Settings)}
    return next((word for word in words if word in names), None)
