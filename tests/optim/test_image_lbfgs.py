"""``ImageLBFGS``: the optimizer of the loop in the form of ``torch.optim``."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from support.toys import Valley, newton, noise
from torch import Tensor

from fastnst.optim import ImageLBFGS
from fastnst.optim.loop import optimize


def train(optimizer: ImageLBFGS, image: Tensor, steps: int) -> None:
    for _ in range(steps):
        image.grad = Valley().value_and_grad(image.detach())[1]
        optimizer.step()


def test_its_steps_equal_those_of_the_loop() -> None:
    """Except for the scale of the gradients, a power of two that changes no bit."""
    settings = newton(steps=6, history=4)
    image = noise().requires_grad_()
    train(ImageLBFGS([image], history_size=4), image, 6)
    expected = optimize(Valley(), noise(), settings).image
    torch.testing.assert_close(image.detach(), expected, rtol=0, atol=1e-4)


def test_it_resumes_from_its_state_dict_bit_for_bit() -> None:
    whole, first = noise().requires_grad_(), noise().requires_grad_()
    train(ImageLBFGS([whole], history_size=3), whole, 9)
    before = ImageLBFGS([first], history_size=3)
    train(before, first, 5)
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    second = first.detach().clone().requires_grad_()
    after = ImageLBFGS([second], history_size=3)
    after.load_state_dict(torch.load(file, weights_only=True))
    train(after, second, 4)
    assert torch.equal(second, whole)


def test_a_closure_gives_the_loss_and_a_scheduler_the_rate() -> None:
    image = torch.full((1, 3, 8, 8), 100.0, requires_grad=True)
    optimizer = ImageLBFGS([image], lr=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (image - 120).square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 3 * 64 * 400.0
    # Half of a first step of 4 levels in z, which A multiplies for the lowest frequency, an eighth.
    lowest = ((1 + 0.64**1.5) / (1 + 0.8**1.5)) ** 0.5
    torch.testing.assert_close(image.detach(), torch.full_like(image, 100 + 0.5 * 4 * lowest))
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert optimizer.step() is None


def test_images_without_a_gradient_are_unchanged() -> None:
    images = [torch.ones(1, 3, 8, 8, requires_grad=True) for _ in range(2)]
    images[0].grad = torch.ones_like(images[0])
    ImageLBFGS(images).step()
    assert not torch.equal(images[0], torch.ones(1, 3, 8, 8))
    assert torch.equal(images[1], torch.ones(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 3, 8, 8), {"lr": 0.0}, "expected lr above zero, got 0.0"),
        ((1, 3, 8, 8), {"history_size": 0}, "expected history_size of at least 1, got 0"),
        ((3, 8, 8), {}, r"expected images of shape \(B, C, H, W\), got \(3, 8, 8\)"),
    ],
)
def test_invalid_arguments_are_named(shape: tuple[int, ...], options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^ImageLBFGS: {message}"):
        ImageLBFGS([torch.zeros(shape, requires_grad=True)], **options)  # type: ignore[arg-type]


def test_a_copy_takes_the_same_steps() -> None:
    image = noise().requires_grad_()
    optimizer = ImageLBFGS([image], history_size=3)
    train(optimizer, image, 5)
    copied = copy.deepcopy(optimizer)
    (other,) = copied.param_groups[0]["params"]
    assert other is not image
    train(optimizer, image, 3)
    train(copied, other, 3)
    assert torch.equal(image, other)


def test_a_group_that_is_added_is_checked_as_well() -> None:
    optimizer = ImageLBFGS([torch.zeros(1, 3, 8, 8, requires_grad=True)])
    with pytest.raises(ValueError, match=r"got \(3, 8, 8\)"):
        optimizer.add_param_group({"params": [torch.zeros(3, 8, 8, requires_grad=True)]})
    assert len(optimizer.param_groups) == 1
