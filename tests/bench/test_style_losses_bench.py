"""Style losses timed beside Gram's: the check of gradients, and ratios of rounds."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from bench.common.results import Report
from bench.e2e import style_losses
from bench.e2e.style_losses import Variant
from fastnst.objective.whole import Objective


@pytest.mark.parametrize(
    "variant",
    [Variant("gram"), Variant("sliced"), Variant("mean_std", masks=2), Variant("gram", content_mask=True)],
    ids=str,
)
@pytest.mark.sweep(2)
def test_a_gradient_that_is_wrong_is_not_timed(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style_losses, "SIDE", 32)
    style_losses.check(variant)
    real = Objective.value_and_grad

    def wrong(self: Objective, image: Tensor) -> Any:
        losses, gradient = real(self, image)
        return losses, gradient * 1.03

    monkeypatch.setattr(Objective, "value_and_grad", wrong)
    with pytest.raises(SystemExit, match=f"{variant}: the loss has the derivative"):
        style_losses.check(variant)


def test_ratios_are_taken_round_by_round() -> None:
    found = style_losses.rows(64, {"gram": [1.0, 2.0, 4.0], "sliced": [2.0, 2.0, 4.0]})
    assert found[1].ratios == [2.0, 1.0, 1.0]
    report: Report = {"rows": [vars(row) for row in found]}
    assert str(style_losses.tables(report)[0]).splitlines()[3] == "| sliced | 64^2 | 2 (2-4) | 1 (1-2) |"


def test_rounds_take_steps_of_every_loss_and_the_first_are_not_counted() -> None:
    seconds = style_losses.measure([Variant("gram"), Variant("mean_std", masks=3)], 32, 3)
    assert {name: len(taken) for name, taken in seconds.items()} == {"gram": 3, "mean_std, 3 masks": 3}
