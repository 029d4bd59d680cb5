"""Making pairs: the network, pictures and style targets they share, and what becomes of one that fails."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnst import images, vgg
from fastnst.errors import FastnstError
from fastnst.gallery.folders import Digests, Made, WriteError, whole_folder, writing
from fastnst.gallery.pairs import Pair
from fastnst.images import Picture
from fastnst.inputs import describe, find_inputs
from fastnst.optimize import Step
from fastnst.scene import Painting, Scene
from fastnst.settings import Settings
from fastnst.transfer import Stylizer

log = logging.getLogger("fastnst")


@dataclass(frozen=True)
class Turn:
    """The pair being made: the ``number``-th, from 1, of ``count`` that were not there yet."""

    pair: Pair
    number: int
    count: int


Watch = Callable[[Turn, Step], "bool | None"]


class Workshop:
    """What pairs share. Raises, as a Stylizer does, for settings that cannot be met by any picture."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stylizer = Stylizer(settings)
        if settings.crop is not None:
            self.stylizer.check(settings.crop, settings.crop)
        elif settings.size is not None:
            vgg.check_size(self.stylizer.network.chain, settings.size, settings.size)
        self._digests = Digests()
        self._broken: dict[Path, str] = {}
        self._content: tuple[Path, Picture] | None = None

    def attempt(self, turn: Turn, watch: Watch | None) -> Made | str:
        """Make a pair, or say what was wrong with it. Raises WriteError."""
        pair = turn.pair
        for path in (pair.content, pair.style):
            if path in self._broken:
                return self._broken[path]
        try:
            content = self._load_content(pair.content)
            style = _usable(pair.style, lambda: self.stylizer.load_style(pair.style, content))
        except _Unusable as error:
            self._broken[error.path] = str(error)
            log.warning("%s; skipped", error)
            return str(error)
        try:
            return self._make(turn, content, style, watch)
        except WriteError:
            raise
        except FastnstError as error:
            log.warning("%s: %s; skipped", pair.name, error)
            return str(error)

    def _load_content(self, path: Path) -> Picture:
        """The last one is kept: pairs of every content with every style have it in common with the next."""
        if self._content is None or self._content[0] != path:
            self._content = (path, _usable(path, lambda: self.stylizer.load(path)))
        return self._content[1]

    def _make(self, turn: Turn, content: Picture, style: Picture, watch: Watch | None) -> Made:
        settings, pair = self.settings, turn.pair
        files = find_inputs(settings, content=pair.content, style=pair.style)

        def save_made(path: Path, made: Picture) -> Path:
            return _save(path, made, describe(self.stylizer.as_run(), files, pair.folder))

        with whole_folder(pair.folder) as folder:
            _save(folder / "content.jpg", content)
            _save(folder / "style.jpg", style)

            count = 0

            def callback(step: Step) -> bool | None:
                nonlocal count
                count = step.count
                if settings.snapshot_every and count % settings.snapshot_every == 0 and not step.last:
                    pixels = self.stylizer.finish(step.image, content)
                    save_made(folder / f"gen_{count}.jpg", Picture(pixels, content.alpha))
                return watch(turn, step) if watch is not None else None

            scene = Scene(content, (Painting(style),), start=self.stylizer.load_start(content))
            result = self.stylizer.run(scene, callback=callback)
            if result.stopped == "interrupt":
                raise KeyboardInterrupt
            # not the number of steps in the trace: a scale that stalled has fewer than its share of the count
            picture = save_made(folder / f"gen_{count}.jpg", Picture(result.image, result.alpha))
            record = json.dumps(
                {
                    "content": {"name": pair.content.name, "sha256": self._digests[pair.content]},
                    "style": {"name": pair.style.name, "sha256": self._digests[pair.style]},
                    "result": picture.name,
                    "steps": sum(map(len, result.trace)),
                    "seconds": result.seconds,
                    "losses": dataclasses.asdict(next(scale[-1] for scale in reversed(result.trace) if scale)),
                    "settings": settings.to_dict(),
                },
                indent=1,
            )
            with writing(folder / "pair.json"):
                (folder / "pair.json").write_text(record, encoding="utf-8")
        return Made(pair, pair.folder / picture.name, json.loads(record), kept=False)


class _Unusable(FastnstError):
    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


def _usable(path: Path, load: Callable[[], Picture]) -> Picture:
    try:
        return load()
    except FastnstError as error:
        raise _Unusable(path, str(error)) from error
    except MemoryError:
        raise _Unusable(path, f"{path}: out of memory") from None


def _save(path: Path, picture: Picture, settings: dict[str, Any] | None = None) -> Path:
    with writing(path):
        return images.save(path, picture.pixels, alpha=picture.alpha, settings=settings)
