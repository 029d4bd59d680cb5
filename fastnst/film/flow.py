"""Optical flow between two frames, and warping a frame by it.

A flow ``[1, 2, H, W]`` holds the displacement of each pixel in pixels, x before y: the point p of one frame is at
``p + flow(p)`` in the other.
"""

from __future__ import annotations

from pickle import UnpicklingError
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.errors import UsageError, WeightsError


class FlowEstimator(Protocol):
    """Estimates optical flow; any function of this form can be given to :func:`fastnst.film.stylize_film`.

    Example::

        def no_motion(frame, other):
            return frame.new_zeros(1, 2, *frame.shape[2:])

        FilmRequest("clip.mp4", ["painting.jpg"], "out.mp4", flow=no_motion)
    """

    def __call__(self, frame: Tensor, other: Tensor) -> Tensor:
        """The flow ``[1, 2, H, W]``, float32, from ``frame`` to ``other``, both ``[1, 3, H, W]`` in 0..1."""
        ...


class DisFlow:
    """Dense inverse search (Kroeger, Timofte, Dai and Van Gool, 2016) by OpenCV, on the CPU.

    Its result depends on the number of threads that OpenCV uses, so one thread is used.

    Raises:
        UsageError: OpenCV is not installed.

    Example:
        >>> import torch
        >>> frame = torch.rand(1, 3, 64, 64)
        >>> DisFlow()(frame, frame).abs().max().item() < 0.1
        True
    """

    def __init__(self) -> None:
        try:
            import cv2
        except ImportError as error:
            raise UsageError("optical flow needs OpenCV; install fastnst[film]") from error
        self._cv2: Any = cv2  # whose stubs lack the estimator
        self._estimator = self._cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, frame: Tensor, other: Tensor) -> Tensor:
        threads = self._cv2.getNumThreads()
        self._cv2.setNumThreads(1)
        try:
            flow = self._estimator.calc(self._gray(frame), self._gray(other), None)
        finally:
            self._cv2.setNumThreads(threads)
        return torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1)))[None]

    def _gray(self, frame: Tensor) -> Any:
        levels = (frame[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
        return self._cv2.cvtColor(levels, self._cv2.COLOR_RGB2GRAY)


class RaftFlow:
    """RAFT (Teed and Deng, 2020) by torchvision, with weights from a file of ``torchvision.models.optical_flow``.

    Args:
        weights: a file with the state of ``raft_large`` or ``raft_small``.
        device: where the network runs.

    Raises:
        UsageError: torchvision is not installed. WeightsError: a file that does not hold these weights.

    Example::

        flow = RaftFlow("raft_small.pth")(frame, other)
    """

    def __init__(self, weights: str, device: torch.device | str = "cpu") -> None:
        try:
            from torchvision.models import optical_flow
        except (ImportError, RuntimeError) as error:
            raise UsageError("flow raft: needs torchvision of the version that fits torch") from error
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            small = not any(name.startswith("mask_predictor") for name in state)
            network = optical_flow.raft_small() if small else optical_flow.raft_large()
            network.load_state_dict(state)
        except (OSError, RuntimeError, AttributeError, TypeError, ValueError, UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WeightsError(f"{weights}: not the weights of torchvision's RAFT ({reason})") from error
        self.device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self.device)

    @torch.no_grad()
    def __call__(self, frame: Tensor, other: Tensor) -> Tensor:
        height, width = frame.shape[-2:]
        padding = (0, -width % 8, 0, -height % 8)  # its features have an eighth of the size
        pair = [F.pad(x.to(self.device) * 2 - 1, padding, mode="replicate") for x in (frame, other)]
        flow: Tensor = self._network(*pair)[-1][:, :, :height, :width]
        return flow.float().cpu()


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """The picture ``[1, C, H, W]`` sampled at ``p + flow(p)``, by cubic interpolation; clamped to its range.

    Outside the picture it is mirrored, so that what comes into view starts from painted texture and not from streaks.

    Example:
        >>> import torch
        >>> picture, flow = torch.rand(1, 3, 8, 8), torch.zeros(1, 2, 8, 8)
        >>> flow[:, 0] = 1.0
        >>> torch.allclose(warp(picture, flow)[..., :-1], picture[..., 1:], atol=1e-5)
        True
    """
    height, width = picture.shape[-2:]
    moved = F.grid_sample(
        picture, _grid(flow.to(picture), height, width), mode="bicubic", padding_mode="reflection", align_corners=True
    )
    return moved.clamp_(float(picture.min()), float(picture.max()))


def sample(picture: Tensor, flow: Tensor) -> Tensor:
    """As :func:`warp`, by linear interpolation."""
    height, width = picture.shape[-2:]
    grid = _grid(flow.to(picture), height, width)
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=True)


def positions(flow: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinates x and y, each ``[H, W]``, of ``p + flow(p)``."""
    height, width = flow.shape[-2:]
    y = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None]
    x = torch.arange(width, dtype=flow.dtype, device=flow.device)
    return x + flow[0, 0], y + flow[0, 1]


def _grid(flow: Tensor, height: int, width: int) -> Tensor:
    """Coordinates as ``grid_sample`` expects them: -1 and 1 are the centers of the outermost pixels."""
    x, y = positions(flow)
    return torch.stack((x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1), -1)[None]
