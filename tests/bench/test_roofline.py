"""The roofline's predictions, on which the design is based."""

from __future__ import annotations

import pytest

from bench.gpu import roofline

# Microseconds at 1024^2: fused forward, eager float32 forward, fused backward, eager float32 backward.
EXPECTED = {
    "relu1_1": ((80, 128, 240, 801), (132, 441, 395, 1671), (266, 266, 799, 2663)),
    "relu2_1": ((40, 128, 120, 497), (66, 441, 197, 1276), (133, 133, 399, 1332)),
    "relu3_1": ((20, 128, 60, 377), (33, 441, 99, 1078), (67, 104, 200, 666)),
    "relu4_1": ((10, 128, 30, 317), (28, 441, 55, 980), (52, 104, 104, 408)),
    "relu5_1": ((3, 32, 8, 79), (7, 110, 14, 245), (13, 26, 26, 102)),
}


@pytest.mark.parametrize("layer", EXPECTED)
def test_predictions_of_the_style_loss(layer: str) -> None:
    channels, n = roofline.LAYERS[layer][0], roofline.positions_of(layer, 1024)
    got = []
    for card in roofline.CARDS[:3]:
        forward, backward = roofline.eager_style(card, channels, n, "float32")
        fused = [roofline.fused(op, card, channels, n, "tf32") for op in ("style_loss", "style_loss backward")]
        got.append(tuple(round(1e6 * s) for s in (fused[0], forward, fused[1], backward)))
    assert tuple(got) == EXPECTED[layer]


def test_half_features_move_half_the_bytes_and_multiply_at_the_rate_of_their_kind() -> None:
    card = roofline.CARDS[0]
    wide, narrow = (roofline.fused("style_loss", card, 64, 2**20, p) for p in ("tf32", "half"))
    assert wide == 2 * narrow
    operations = roofline.work("style_loss", 10**4, 10, "half").operations
    assert roofline.fused("style_loss", card, 10**6, 10, "half") == pytest.approx(operations * 10**4 / card.half)


def test_float32_by_tensor_cores_is_three_products_unless_the_ordinary_units_are_faster() -> None:
    h100, _, rtx4090 = roofline.CARDS[:3]
    assert h100.products("float32") == h100.tf32 / 3
    assert rtx4090.products("float32") == rtx4090.fp32


@pytest.mark.parametrize(
    ("driver_name", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", None),
        ("Tesla T4", None),
    ],
)
def test_published_peaks_are_found_by_the_drivers_name(driver_name: str, name: str | None) -> None:
    card = roofline.named(driver_name)
    assert (card.name if card else None) == name


def test_the_script_prints_the_predictions_on_any_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["roofline.py"])
    roofline.main()
    said = capsys.readouterr().out
    assert "| relu3_1 | 20 / 128 / 60 / 377 | 33 / 441 / 99 / 1078 | 67 / 104 / 200 / 666 |" in said
