"""The L-BFGS of the loop as a ``torch.optim.Optimizer``, for training code of other people."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

from fastnst.optim.conditioning import ConditionedLBFGS


class ImageLBFGS(torch.optim.Optimizer):
    r"""L-BFGS for images: one evaluation per step, no line search, preconditioned for low frequencies.

    The algorithm is that of ``fastnst.stylize`` with ``optimizer="lbfgs"``: algorithm 7.4 of Nocedal and Wright,
    "Numerical Optimization", 2006, on :math:`z` with :math:`x = A z`, where :math:`A^2` multiplies each spatial
    frequency :math:`f` by :math:`1 + (0.08 / \max(f, 0.004))^{3/2}`, times a constant; :math:`f` is at least one
    wave per image.

    The first step changes :math:`z` by 4 on average, later steps by at most 8 on average, so images should have values
    of about 0..255. Each parameter is minimized on its own.

    Args:
        params: images ``[B, C, H, W]``, float32 or float64.
        lr: factor of each step.
        history_size: number of pairs kept, at least 1; memory is ``2 * history_size`` images.
        history_dtype: dtype of these pairs, such as ``torch.bfloat16``; None for the dtype of the image.

    Raises:
        ValueError: ``lr`` is not above zero, ``history_size`` is below 1, or a parameter does not have four dimensions.

    Example:
        >>> import torch, fastnst
        >>> image = torch.full((1, 3, 16, 16), 100.0, requires_grad=True)
        >>> optimizer = fastnst.optim.ImageLBFGS([image])
        >>> for _ in range(40):
        ...     optimizer.zero_grad()
        ...     loss = (image - 120).square().sum()
        ...     loss.backward()
        ...     _ = optimizer.step()
        >>> bool(loss < 1e-3)
        True
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1.0,
        history_size: int = 20,
        *,
        history_dtype: torch.dtype | None = None,
    ) -> None:
        if not lr > 0:
            raise ValueError(f"ImageLBFGS: expected lr above zero, got {lr}")
        if history_size < 1:
            raise ValueError(f"ImageLBFGS: expected history_size of at least 1, got {history_size}")
        self._cores: dict[Tensor, ConditionedLBFGS] = {}
        super().__init__(params, {"lr": lr, "history_size": history_size, "history_dtype": history_dtype})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in :meth:`torch.optim.Optimizer.add_param_group`. Raises ValueError for another shape than an image's."""
        super().add_param_group(param_group)
        for image in self.param_groups[-1]["params"]:
            if image.dim() != 4:
                del self.param_groups[-1]
                raise ValueError(f"ImageLBFGS: expected images of shape (B, C, H, W), got {tuple(image.shape)}")

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        Args:
            closure: clears the gradients, computes the loss, calls ``backward`` and returns the loss; called once.

        Returns:
            The loss of the closure; None without one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for image in group["params"]:
                if image.grad is not None:
                    self._step(image, group)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """As in :meth:`torch.optim.Optimizer.state_dict`; it holds the pairs in use, tensors not copied."""
        for image, core in self._cores.items():
            self.state[image] = core.state_dict()
        found: dict[str, Any] = super().state_dict()
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in :meth:`torch.optim.Optimizer.load_state_dict`."""
        super().load_state_dict(state_dict)
        self._restore()

    def __getstate__(self) -> dict[str, Any]:
        self.state_dict()  # the state of each image: what a copy or a pickle is restored from
        found: dict[str, Any] = super().__getstate__()
        return found

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if any(self.state.values()):
            self._restore()

    def _restore(self) -> None:
        self._cores = {}
        for group in self.param_groups:
            for image in group["params"]:
                if image in self.state:
                    self._core(image, group).load_state_dict(self.state[image])

    def _core(self, image: Tensor, group: dict[str, Any]) -> ConditionedLBFGS:
        if image not in self._cores:
            dtype = group["history_dtype"]
            self._cores[image] = ConditionedLBFGS(image, group["lr"], group["history_size"], dtype)
        return self._cores[image]

    @torch.no_grad()
    def _step(self, image: Tensor, group: dict[str, Any]) -> None:
        assert image.grad is not None
        core = self._core(image, group)
        core.inner.learning_rate = group["lr"]  # a scheduler may have changed it
        core.step(image, image.grad)
