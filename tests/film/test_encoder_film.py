"""A film with an encoder of the registry."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import COUNT, FILM, SETTINGS, frames, request
from support.encoders import ENTRY

from fastnst.config import encoders as registry
from fastnst.film import FilmProgress, stylize_film
from fastnst.network import register_encoder
from fastnst.optim.progress import Step


def test_frames_are_held_to_those_before(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    register_encoder(ENTRY)
    settings = SETTINGS.replace(arch="tiny", content_layers=ENTRY.content_layers, style_layers=ENTRY.style_layers)
    held: dict[int, float] = {}

    def callback(progress: FilmProgress, step: Step) -> None:
        held[progress.frame] = step.losses.temporal

    report = stylize_film(request(), settings, FILM, callback=callback)
    assert (report.made, len(frames("out.mkv"))) == (2 * COUNT, 2 * COUNT)
    assert [number for number, loss in held.items() if loss == 0] == [0, COUNT]
