"""The model of several ranks: the terms added to a rank's share of the work."""

from __future__ import annotations

import pytest

from bench.e2e import scaling
from fastnst import weights
from fastnst.network.vgg import VGG


def test_the_model_adds_the_bytes_sent_between_ranks() -> None:
    network = VGG(weights.load(), ["relu1_1", "relu2_1"])
    assert scaling.predicted(60.0, 1000, 1, network, 1e9) == 60.0
    unlimited = scaling.predicted(60.0, 1000, 2, network, 1e30)
    assert unlimited == pytest.approx(30.0, abs=0.1)
    # Two rows at each convolution, of the image and of two feature maps; one row of a pair at the pool.
    rows = 2 * 3 * 1000 + 2 * 64 * 1000 + 64 * 1000 + 2 * 64 * 500
    sums = 8 * sum(c * c for c in (64, 128, 256, 512, 512))
    sent = 3 * 4 * rows + 2 * sums + 3 * 4 * 1000 * 1000
    assert scaling.predicted(60.0, 1000, 2, network, 1e9) - unlimited == pytest.approx(sent / 1e9, rel=0.01)
