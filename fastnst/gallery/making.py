"""Make pairs that share a network, pictures and style targets; a pair that fails does not stop the others."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fastnst import images
from fastnst.config.provenance import describe, find_inputs
from fastnst.config.settings import Settings
from fastnst.errors import FastnstError
from fastnst.gallery.folders import Digests, PairResult, WriteError, replacing_folder, writing
from fastnst.gallery.pairs import Pair
from fastnst.images import Picture
from fastnst.optim.progress import Step
from fastnst.run.result import Result
from fastnst.run.scene import Scene, StylePicture
from fastnst.run.stylizer import Stylizer

log = logging.getLogger("fastnst")


@dataclass(frozen=True)
class PairProgress:
    """The pair in progress: ``number``, counted from 1, of ``count`` pairs to make.

    Example:
        >>> from pathlib import Path
        >>> pair = Pair(Path("content_1.jpg"), Path("style_2.jpg"), Path("styled/gen_0"))
        >>> progress = PairProgress(pair, number=1, count=4)
        >>> f"{progress.number}/{progress.count} {progress.pair.name}"
        '1/4 content_1 + style_2'
    """

    pair: Pair
    number: int
    count: int


PairCallback = Callable[[PairProgress, Step], "bool | None"]


class PairMaker:
    """Makes pairs with one :class:`Stylizer`. Raises its errors for settings that no picture can satisfy."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stylizer = Stylizer(settings)
        if settings.crop is not None:
            self.stylizer.check(settings.crop, settings.crop)
        elif settings.size is not None:
            self.stylizer.setup.sizing.check_size(settings.size, settings.size)
        self._digests = Digests()
        self._broken: dict[Path, str] = {}
        self._content: tuple[Path, Picture] | None = None

    def attempt(self, progress: PairProgress, callback: PairCallback | None) -> PairResult | str:
        """Make a pair and return its result, or the reason of its failure. Raises WriteError."""
        pair = progress.pair
        for path in (pair.content, pair.style):
            if path in self._broken:
                return self._broken[path]
        try:
            content = self._load_content(pair.content)
            style = _usable(pair.style, lambda: self.stylizer.loader.style(pair.style, content))
        except _Unusable as error:
            self._broken[error.path] = str(error)
            log.warning("%s; skipped", error)
            return str(error)
        try:
            return self._make(progress, content, style, callback)
        except WriteError:
            raise
        except FastnstError as error:
            log.warning("%s: %s; skipped", pair.name, error)
            return str(error)

    def _load_content(self, path: Path) -> Picture:
        """Load a content picture; the last one is cached, since consecutive pairs often share it."""
        if self._content is None or self._content[0] != path:
            self._content = (path, _usable(path, lambda: self.stylizer.loader.content(path)))
        return self._content[1]

    def _make(
        self, progress: PairProgress, content: Picture, style: Picture, callback: PairCallback | None
    ) -> PairResult:
        every, pair = self.settings.snapshot_every, progress.pair
        files = find_inputs(self.settings, content=pair.content, style=pair.style)
        count = 0

        def save_image(pixels: Tensor) -> Path:
            facts = describe(self.stylizer.settings_with_strips(), files, pair.folder)
            return _save(folder / f"gen_{count}.jpg", Picture(pixels, content.alpha), facts)

        def on_step(step: Step) -> bool | None:
            nonlocal count
            count = step.count
            if every and count % every == 0 and not step.last:
                save_image(self.stylizer.finish(step.image, content))
            return callback(progress, step) if callback is not None else None

        with replacing_folder(pair.folder) as folder:
            _save(folder / "content.jpg", content)
            _save(folder / "style.jpg", style)
            scene = Scene(content, (StylePicture(style),), start=self.stylizer.loader.start(content))
            result = self.stylizer.run(scene, callback=on_step)
            if result.stopped == "interrupt":
                raise KeyboardInterrupt
            # The count is not the number of steps in the trace, which is smaller if a scale stalls.
            picture = save_image(result.image)
            record = json.dumps(self._record(pair, result, picture), indent=1)
            with writing(folder / "pair.json"):
                (folder / "pair.json").write_text(record, encoding="utf-8")
        return PairResult(pair, pair.folder / picture.name, json.loads(record), kept=False)

    def _record(self, pair: Pair, result: Result, picture: Path) -> dict[str, Any]:
        """The contents of ``pair.json``."""
        return {
            "content": {"name": pair.content.name, "sha256": self._digests[pair.content]},
            "style": {"name": pair.style.name, "sha256": self._digests[pair.style]},
            "result": picture.name,
            "steps": sum(map(len, result.trace)),
            "seconds": result.seconds,
            "losses": dataclasses.asdict(next(scale[-1] for scale in reversed(result.trace) if scale)),
            "settings": self.settings.to_dict(),
        }


class _Unusable(FastnstError):
    """A picture cannot be used."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


def _usable(path: Path, load: Callable[[], Picture]) -> Picture:
    """The loaded picture. Raises _Unusable, which names the file."""
    try:
        return load()
    except FastnstError as error:
        raise _Unusable(path, str(error)) from error
    except MemoryError:
        raise _Unusable(path, f"{path}: out of memory") from None


def _save(path: Path, picture: Picture, settings: dict[str, Any] | None = None) -> Path:
    with writing(path):
        return images.save(path, picture.pixels, alpha=picture.alpha, settings=settings)
