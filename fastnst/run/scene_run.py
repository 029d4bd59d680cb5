"""One run of a scene: its scales from coarse to fine, each from the result of the one before."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import ops, process
from fastnst.config.provenance import find_inputs
from fastnst.errors import UsageError
from fastnst.network.vgg import VGG
from fastnst.objective.pixels import PixelTarget
from fastnst.objective.protocol import Losses, ValueAndGrad
from fastnst.objective.views import Hold, Mirror, viewed
from fastnst.objective.whole import Objective
from fastnst.optim.adam import resize_state
from fastnst.optim.loop import LoopContext, LoopState, ScaleResult, StartError, optimize
from fastnst.optim.progress import Callback, Clock, Step, to_picture
from fastnst.run import colors
from fastnst.run.checkpoint import Checkpoint
from fastnst.run.checkpoint_file import Identity, SavedRun
from fastnst.run.memory_limits import is_out_of_memory
from fastnst.run.result import Result, finish
from fastnst.run.scales import scale_sizes, shrinks
from fastnst.run.scene import Scene, mask_values
from fastnst.run.setup import Setup
from fastnst.run.sizing import view_of_edges
from fastnst.run.targets import regions
from fastnst.strips.objective import StripObjective

log = logging.getLogger("fastnst")


class SceneRun:
    """Runs the scales of a scene.

    Args:
        setup: network, settings and caches.
        scene: the pictures.
        callback: called after each step.
        checkpoint: resumed from and written to; entered by the caller.
    """

    def __init__(
        self, setup: Setup, scene: Scene, callback: Callback | None = None, checkpoint: Checkpoint | None = None
    ) -> None:
        process.check_threads_after_fork()
        settings = setup.settings
        self.setup, self.callback, self.checkpoint = setup, callback, checkpoint
        self.original = scene.content
        self.inputs = find_inputs(settings, **scene.files())
        self.shares = scene.shares(settings.style_weights)
        self.shrinks = shrinks(*scene.content.size, settings)
        self.sizes = scale_sizes(*scene.content.size, settings)
        setup.sizing.check(*self.sizes[-1])
        ops.follow_matmul_precision()
        self.saved = self._resume(scene)
        self.scene = colors.prepare(scene, settings)
        self.clock = _clock(self.sizes, settings.steps_at, self.saved)
        self.trace: list[tuple[Losses, ...]] = [tuple(losses) for losses in self.saved.before]
        self.result: ScaleResult | None = None

    def run(self) -> Result:
        """Run the scales that are left, and return the result."""
        if self.saved.finished:
            self._restore_finished()
        else:
            for scale in range(self.saved.scale, len(self.sizes) + 1):
                if not self._try_scale(scale):
                    break
            self._write_finished()
        return self._finish()

    def _resume(self, scene: Scene) -> SavedRun:
        """The state of the run in the checkpoint; the beginning without one."""
        setup = self.setup
        if self.checkpoint is None:
            return SavedRun()
        if scene.temporal is not None:
            raise UsageError("checkpoint: a run with a temporal loss has none; fastnst.film resumes at the frame")
        pictures = {part: picture.pixels for part, picture in scene.pictures().items()}
        identity = Identity(setup.settings, pictures, setup.weights_name, setup.weights_digest())
        saved = self.checkpoint.begin(identity)
        setup.sizing.record(saved.strips)
        return saved

    def _try_scale(self, scale: int) -> bool:
        """Run a scale and return whether the run continues. An error in a later scale keeps the result so far."""
        try:
            self._run_scale(scale)
        except KeyboardInterrupt:
            if self.result is None:  # there is nothing to keep yet
                raise
            self.result = dataclasses.replace(self.result, stopped="interrupt")
        except StartError as error:
            if self.result is None:
                raise
            log.warning("scale %d: %s; the result is that of the scale before, enlarged", scale, error)
            image = self.setup.result_pixels(to_picture(self.result.image), *self.sizes[-1])
            self.result = ScaleResult(image, [], "stalled")
            self.trace += [()] * (len(self.sizes) - len(self.trace))
            return False
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise self.setup.sizing.out_of_memory(self.sizes[scale - 1], scale) from error
        assert self.result is not None
        return self.result.stopped not in ("callback", "interrupt")

    def _run_scale(self, scale: int) -> None:
        size = self.sizes[scale - 1]
        objective = self._objective(scale)
        state = self.saved.loop if self.result is None else LoopState()
        image = self._image(state, size)
        if self.result is not None:  # releases the last scale's image and then its state
            self.result = dataclasses.replace(self.result, image=image)
            carried = resize_state(self.result.carried, *size)
            state.state.update({"optimizer": carried} if carried else {})
            self.result = dataclasses.replace(self.result, carried={})
        self.setup.ranks.broadcast(image)
        process.release_memory()  # memory of reading weights and measuring targets
        writer = None
        if self.checkpoint is not None:
            writer = self.checkpoint.writer(scale, self.trace, self.clock, self.setup.sizing.recorded)
        capture = self.setup.capture
        callback, hold = self.callback, self._hold(size)
        if hold is not None:
            objective, callback = viewed(objective, hold), _showing(callback, hold)
        context = LoopContext(scale, len(self.sizes), callback, self.clock, capture, writer, self.sizes[-1])
        self.result = optimize(objective, image, self.setup.chosen, context, state=state, overwrite=True)
        if hold is not None:
            self.result = dataclasses.replace(self.result, image=hold.image(self.result.image))
        self.trace.append(tuple(self.result.trace))

    def _hold(self, size: tuple[int, int]) -> Hold | None:
        """What keeps the pixels outside a hole, at the size of a scale."""
        weight = mask_values(None if self.scene.hole is None else self.scene.hole.weight, size)
        return None if weight is None else Hold(self.setup.result_pixels(self.scene.content.pixels, *size), weight)

    def _image(self, state: LoopState, size: tuple[int, int]) -> Tensor:
        """The start image of a scale."""
        if state.image is not None:
            return state.image.to(self.setup.network.device)
        if self.result is not None:
            return self.setup.result_pixels(to_picture(self.result.image), *size)
        return self._first_image(size)

    def _first_image(self, size: tuple[int, int]) -> Tensor:
        """The start image of the run: the content, the style stretched to its size, a given picture, or noise."""
        setup, settings, scene = self.setup, self.setup.settings, self.scene
        if scene.start is not None:
            return self.setup.result_pixels(scene.start.pixels, *size)
        if settings.init == "content":
            return self.setup.result_pixels(scene.content.pixels, *size)
        if settings.init == "style":
            return setup.pixels(scene.styles[0].picture.pixels, *size)
        # Drawn on the CPU, so that a seed gives the same noise on every device.
        generator = torch.Generator("cpu").manual_seed(settings.seed)
        noise = torch.randn(1, 3, *size, generator=generator, dtype=torch.float32, device="cpu")
        network = setup.network
        return (network.mean + (noise * settings.noise).to(network.device)).to(setup.image_dtype)

    def _objective(self, scale: int) -> ValueAndGrad:
        """The objective of a scale, for the whole image or for strips of it."""
        setup, size = self.setup, self.sizes[scale - 1]
        styles = regions(setup, self.scene.styles, self.shares, self.shrinks[scale - 1], size, scale)
        view, mask = view_of_edges(size, setup.settings, setup.network), mask_values(self.scene.content_mask, size)
        mask, target = None if mask is None else view.image(mask), self._pixel_target(size, view)
        pixels, rows = (
            view.image(self.setup.result_pixels(self.scene.content.pixels, *size)),
            setup.sizing.rows(*size, scale),
        )
        network, settings = setup.network, setup.settings
        if rows is None:
            objective: ValueAndGrad = Objective(
                network, pixels, styles, settings, content_mask=mask, pixel_target=target
            )
        else:
            ranks = setup.sizing.ranks_for(*size)
            assert isinstance(network, VGG)
            objective = StripObjective(network, pixels, styles, settings, rows, mask, ranks, pixel_target=target)
        return objective if view.extended == size else viewed(objective, view)

    def _pixel_target(self, size: tuple[int, int], view: Mirror) -> PixelTarget | None:
        temporal = self.scene.temporal
        if temporal is None:
            return None
        target, weight = self.setup.pixels(temporal.pixels, *size), temporal.weight
        weight = weight if weight.shape[2:] == size else F.adaptive_avg_pool2d(weight, size)
        found = PixelTarget(target, weight.to(target), temporal.factor)
        return found if view.extended == size else found.extended(*view.more)

    def _restore_finished(self) -> None:
        """Take the result of a run that the checkpoint holds finished."""
        loop = self.saved.loop
        assert loop.image is not None
        self.result = ScaleResult(loop.image, loop.trace, self.saved.stopped)
        self.trace.append(tuple(loop.trace))

    def _write_finished(self) -> None:
        result, checkpoint = self.result, self.checkpoint
        assert result is not None
        if checkpoint is None or result.stopped in ("callback", "interrupt"):
            return
        last = LoopState(result.trace, {"loop": {"image": result.image}})
        strips = self.setup.sizing.recorded
        seconds, scales = self.clock.seconds, len(self.sizes)
        checkpoint.save(SavedRun(scales, self.trace[:-1], last, seconds, True, result.stopped, strips))

    def _finish(self) -> Result:
        assert self.result is not None
        seconds, setup = self.clock.seconds, self.setup
        hole, trace = self.scene.hole, tuple(self.trace)
        image, stopped, settings = to_picture(self.result.image), self.result.stopped, setup.settings
        try:
            picture = finish(image, self.original, settings, hole)
        except KeyboardInterrupt:  # its pass is left out, so that the picture of a whole run is not lost
            stopped, settings = "interrupt", settings.replace(photoreal=0.0)
            picture = finish(image, self.original, settings, hole)
        settings = setup.sizing.with_strips(settings)
        whole, bits = (self.scene.content, None) if hole is None else (hole.picture, hole.bits)
        return Result(picture, whole.alpha, settings, trace, seconds, stopped, self.inputs, bits)


def _showing(callback: Callback | None, hold: Hold) -> Callback | None:
    """The callback, called with steps whose image has the pixels that are held."""
    if callback is None:
        return None

    def call(step: Step) -> bool | None:
        shown = dataclasses.replace(step, _view=hold.image)
        try:
            return callback(shown)
        finally:
            shown.release()

    return call


def _clock(sizes: Sequence[tuple[int, int]], steps_at: Callable[[int], int], saved: SavedRun) -> Clock:
    """The clock of a whole run whose state is ``saved``."""
    work = [float(3 * height * width) for height, width in sizes]
    steps = [steps_at(i + 1) for i in range(len(sizes))]
    taken = [*steps[: saved.scale - 1], len(saved.loop.trace)]
    total, done = (sum(w * count for w, count in zip(work, counts, strict=False)) for counts in (steps, taken))
    return Clock(total, done, time.perf_counter() - saved.seconds)
