"""Make the frames of a shot, each from the ones before."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastnst.config.film import FilmSettings
from fastnst.config.settings import Settings
from fastnst.film.consistency import combine, reliability, stillness
from fastnst.film.flow import FlowEstimator, warp
from fastnst.film.frames_store import FrameStore
from fastnst.film.shots import Shot
from fastnst.images import Picture
from fastnst.optim.progress import Step
from fastnst.run import colors, photoreal
from fastnst.run.scene import Scene, StylePicture, Temporal
from fastnst.run.stylizer import Stylizer


@dataclass(frozen=True)
class FilmProgress:
    """The frame in progress: ``frame`` in the pass ``which`` of ``passes``; ``done`` of ``count`` frames are made.

    Example:
        >>> FilmProgress(frame=3, which=1, passes=1, done=3, count=24).done
        3
    """

    frame: int
    which: int
    passes: int
    done: int
    count: int


FilmCallback = Callable[[FilmProgress, Step], "bool | None"]


class ShotMaker:
    """Makes the frames of one shot.

    Args:
        stylizer: with the settings of the shot.
        scene: the scene of its first frame.
        film: the settings of the film.
        flow: estimates optical flow.
        store: where frames are read and written.
        moving: the styles whose masks change from frame to frame, by index.
    """

    def __init__(
        self,
        stylizer: Stylizer,
        scene: Scene,
        film: FilmSettings,
        flow: FlowEstimator,
        store: FrameStore,
        moving: Sequence[int] = (),
    ) -> None:
        self.settings, self.film, self.flow, self.store = stylizer.settings, film, flow, store
        self.moving = moving
        # Colors are matched once, to the first frame: styles that change from frame to frame would flicker.
        self.scene = colors.prepare(scene, self.settings)
        self.still = stylizer.replace(keep_color="none", match_color="none", photoreal=0.0)
        self.next = self.still.replace(steps=film.next_steps, scales=1, first_change=film.next_change)

    def make(self, shot: Shot, which: int, callback: Callable[[int, Step], bool | None] | None) -> Iterator[int]:
        """Make the missing frames of a pass, and give the number of each frame that is there."""
        for number in shot.order(backward=which % 2 == 0):
            if not self.store.has(_pass(which), number):
                own = None if callback is None else functools.partial(callback, number)
                self.store.write(_pass(which), number, Picture(self._make(shot, number, which, own)))
            yield number

    def _make(self, shot: Shot, number: int, which: int, callback: Callable[[Step], bool | None] | None) -> Tensor:
        content, step = self.store.read("content", number), 1 if which % 2 == 0 else -1
        scene = dataclasses.replace(
            self.scene, content=colors.content_for(content, self.settings), styles=self._styles(number)
        )
        neighbors = [number + step * back for back in self.film.lookback]
        neighbors = [other for other in neighbors if shot.first <= other < shot.last]
        still = None
        if neighbors:
            scene, still = self._with_temporal(scene, content, neighbors, which)
        if which > 1:
            scene = self._with_blend(scene, number, which)
        stylizer = self.still if which == 1 and not neighbors else self.next
        result = stylizer.run(scene, callback=callback)
        if result.stopped == "interrupt":
            raise KeyboardInterrupt
        # What stands still is not painted again: steps would go on changing it, whatever the weight that holds it.
        return result.image if still is None else torch.lerp(result.image, *still)

    def _styles(self, number: int) -> tuple[StylePicture, ...]:
        """The styles with the masks of a frame."""
        styles = list(self.scene.styles)
        for index in self.moving:
            styles[index] = dataclasses.replace(styles[index], mask=self.store.read(f"mask_{index + 1}", number))
        return tuple(styles)

    def _with_temporal(
        self, scene: Scene, content: Picture, neighbors: Sequence[int], which: int
    ) -> tuple[Scene, tuple[Tensor, Tensor]]:
        """The scene held to the frames made before, starting from the nearest of them; that one, and what is still."""
        warped, weights, still = zip(*(self._warped(content, other, which) for other in neighbors), strict=True)
        target, weight = combine(warped, weights)
        weight = weight * (1 + (self.film.still_factor - 1) * still[0])
        factor = self.film.temporal_weight
        temporal = Temporal(target, weight, factor) if factor > 0 else None
        return dataclasses.replace(scene, start=Picture(warped[0]), temporal=temporal), (warped[0], still[0])

    def _with_blend(self, scene: Scene, number: int, which: int) -> Scene:
        """The scene, which starts from the frame of the pass before, blended with the warped neighbors of this pass:
        ``(x + blend c w) / (1 + blend c)``, section 3.4 of the paper as its program weighs it."""
        start, temporal = self.store.read(_pass(which - 1), number).pixels, scene.temporal
        if temporal is not None:
            share = self.film.blend * temporal.weight
            start = (start + share * temporal.pixels) / (1 + share)
        return dataclasses.replace(scene, start=Picture(start))

    def _warped(self, content: Picture, other: int, which: int) -> tuple[Tensor, Tensor, Tensor]:
        """The finished frame ``other`` warped to this one, where it says what this one looks like, and what is still.

        The flow of what is still is noise, and set to zero."""
        made, before = self.store.read(_pass(which), other).pixels, self.store.read("content", other).pixels
        backward, forward = self.flow(content.pixels, before), self.flow(before, content.pixels)
        still = stillness(content.pixels, before, backward)
        backward = backward * (1 - still)
        return warp(made, backward), reliability(backward, forward), still


def _pass(which: int) -> str:
    return f"pass_{which}"


def make_photoreal(store: FrameStore, number: int, passes: int, settings: Settings) -> None:
    """Make the photoreal pass over a finished frame, if the settings ask for it and it is not there."""
    kind = _photoreal(settings)
    if settings.photoreal and not store.has(kind, number):
        made, content = (store.read(name, number).pixels for name in (_pass(passes), "content"))
        store.write(kind, number, Picture(photoreal.smooth(made, content, settings.photoreal)))


def finished(store: FrameStore, number: int, passes: int, settings: Settings) -> Picture:
    """The frame to show: with the content's edges and colors by ``photoreal`` and ``keep_color``, and with its
    transparency. The frames that later ones start from have neither."""
    make_photoreal(store, number, passes, settings)
    content = store.read("content", number)
    made = store.read(_photoreal(settings) if settings.photoreal else _pass(passes), number).pixels
    return Picture(colors.restore(made, content.pixels, settings.keep_color), content.alpha)


def _photoreal(settings: Settings) -> str:
    return f"photoreal_{settings.photoreal}"
