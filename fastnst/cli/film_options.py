"""The options ``--film``, ``--film-every`` and ``--film-fps``: the progress of a run as a film."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastnst.config.parsing import parse_number
from fastnst.errors import UsageError

if TYPE_CHECKING:
    from fastnst.film.progress_film import ProgressFilm


def add_film_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    group = parser.add_argument_group("the progress as a film")
    group.add_argument(
        "--film",
        metavar="FILE",
        help="film the run: .mp4, .mov, .mkv, .webm, .gif, .webp, .png (animated), or a folder of frames; an existing "
        "film is replaced",
    )
    text = "steps from one frame to the next (1 to 1000000000; default: 5)"
    group.add_argument("--film-every", metavar="N", help=text)
    group.add_argument("--film-fps", metavar="X", help="frames per second (0.1 to 240; default: 10)")


@dataclass(frozen=True)
class FilmOptions:
    """The options as text; None for those that are not given."""

    path: str | None
    every: str | None
    fps: str | None

    @classmethod
    def from_namespace(cls, options: argparse.Namespace) -> FilmOptions:
        return cls(options.film, options.film_every, options.film_fps)

    def check(self) -> None:
        """Raise UsageError or ImageError before the run for a film that cannot be made."""
        if self.path is None:
            for name, value in (("--film-every", self.every), ("--film-fps", self.fps)):
                if value is not None:
                    raise UsageError(f"{name}: expected the film to write as well (--film FILE)")
            return
        self.open()

    def open(self, **arguments: Any) -> ProgressFilm:
        """The film, which is written at its end."""
        from fastnst.film.progress_film import EVERY, FPS, ProgressFilm, check_every, check_fps

        assert self.path is not None
        try:
            every = EVERY if self.every is None else check_every(parse_number(self.every, int))
            fps = FPS if self.fps is None else check_fps(parse_number(self.fps))
        except UsageError as error:
            raise UsageError(f"--film-{error}") from None
        return ProgressFilm(self.path, every=every, fps=fps, **arguments)
