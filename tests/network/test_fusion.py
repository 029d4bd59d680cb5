"""Which layers are computed together, case by case for small chains, written by hand."""

from __future__ import annotations

from itertools import product

import pytest

from fastnst.network import vgg
from fastnst.network.fusion import FusionPlan

RULES = ("fuses_relu", "fuses_pool", "releases_relu", "masks_relu", "masks_itself", "is_window")


def plan(
    deepest: str,
    *observed: str,
    pooling: str = "max",
    winograd: bool = True,
    conv_masks: bool = True,
    whole: bool = False,
) -> FusionPlan:
    chain = vgg.chain_to("vgg19", [deepest])
    names = frozenset((deepest, *observed))
    return FusionPlan(chain, names, pooling, winograd, conv_masks=conv_masks, whole_gradients=whole)


def answers(given: FusionPlan) -> dict[str, set[str]]:
    """By rule, the names of the layers for which it holds."""
    return {rule: {layer.name for i, layer in enumerate(given.chain) if getattr(given, rule)(i)} for rule in RULES}


def test_without_losses_in_between_all_that_can_be_is_fused() -> None:
    """conv1_1, relu1_1, conv1_2, relu1_2, pool1, conv2_1, relu2_1 with a loss at the last."""
    assert answers(plan("relu2_1")) == {
        "fuses_relu": {"conv1_1", "conv1_2", "conv2_1"},
        "fuses_pool": {"conv1_2"},
        "releases_relu": {"pool1"},
        "masks_relu": {"conv1_2", "pool1"},
        "masks_itself": {"relu2_1"},
        "is_window": {"conv1_1", "conv1_2", "conv2_1"},
    }


def test_a_pool_of_its_own_without_fastnsts_convolutions() -> None:
    assert answers(plan("relu2_1", winograd=False)) == {
        "fuses_relu": {"conv1_1", "conv1_2", "conv2_1"},
        "fuses_pool": set(),
        "releases_relu": {"pool1"},
        "masks_relu": {"conv1_2", "pool1"},
        "masks_itself": {"relu2_1"},
        "is_window": {"conv1_1", "conv1_2", "pool1", "conv2_1"},
    }


def test_where_convolutions_apply_no_masks_relus_below_them_do() -> None:
    found = answers(plan("relu2_1", winograd=False, conv_masks=False))
    assert found["masks_relu"] == {"pool1"}
    assert found["masks_itself"] == {"relu1_1", "relu2_1"}


@pytest.mark.parametrize("pooling", ["average", "l2"])
def test_only_a_max_pool_is_fused_and_masks_its_relu(pooling: str) -> None:
    assert answers(plan("relu2_1", pooling=pooling)) == {
        "fuses_relu": {"conv1_1", "conv1_2", "conv2_1"},
        "fuses_pool": set(),
        "releases_relu": set(),
        "masks_relu": {"conv1_2"},
        "masks_itself": {"relu1_2", "relu2_1"},
        "is_window": {"conv1_1", "conv1_2", "pool1", "conv2_1"},
    }


def test_a_loss_before_a_relu_keeps_the_convolution_apart() -> None:
    assert answers(plan("relu2_1", "conv1_2")) == {
        "fuses_relu": {"conv1_1", "conv2_1"},
        "fuses_pool": set(),
        "releases_relu": {"pool1"},
        "masks_relu": {"conv1_2", "pool1"},
        "masks_itself": {"relu2_1"},
        "is_window": {"conv1_1", "conv1_2", "pool1", "conv2_1"},
    }


def test_a_loss_at_a_relu_below_a_pool_keeps_both() -> None:
    assert answers(plan("relu2_1", "relu1_2", "relu1_1")) == {
        "fuses_relu": {"conv1_1", "conv1_2", "conv2_1"},
        "fuses_pool": set(),
        "releases_relu": set(),
        "masks_relu": set(),
        "masks_itself": {"relu1_1", "relu1_2", "relu2_1"},
        "is_window": {"conv1_1", "conv1_2", "pool1", "conv2_1"},
    }


def test_a_loss_at_the_pool_does_not_prevent_its_fusion() -> None:
    found = answers(plan("pool1"))
    assert found["fuses_pool"] == {"conv1_2"}
    assert found["is_window"] == {"conv1_1", "conv1_2"}


def test_a_convolution_at_the_end_of_a_chain_has_no_relu_to_apply() -> None:
    assert answers(plan("conv1_1")) == {rule: {"conv1_1"} if rule == "is_window" else set() for rule in RULES}


@pytest.mark.parametrize(
    ("given", "recomputes"),
    [
        (plan("conv1_2"), True),
        (plan("relu2_1", "relu1_1"), True),
        (plan("relu2_1", "relu1_1", pooling="average"), True),
        (plan("relu2_1", "relu1_1", whole=True), False),
        (plan("relu2_1", whole=True), True),
        (plan("relu2_1", "conv1_1"), False),
        (plan("relu1_1"), False),
        (plan("relu2_1", winograd=False), False),
    ],
)
def test_the_first_map_is_recomputed_unless_a_loss_needs_all_of_it(given: FusionPlan, recomputes: bool) -> None:
    assert given.recomputes_first() == recomputes


def test_every_relus_mask_is_applied_once() -> None:
    """By the layer above it or by itself, for all choices of observed layers of a chain."""
    chain = vgg.chain_to("vgg19", ["relu2_1"])
    for pooling, winograd, conv_masks in product(("max", "average", "l2"), (False, True), (False, True)):
        for chosen in product((False, True), repeat=len(chain) - 1):
            observed = [layer.name for layer, one in zip(chain, chosen, strict=False) if one]
            given = plan("relu2_1", *observed, pooling=pooling, winograd=winograd, conv_masks=conv_masks)
            for i, layer in enumerate(chain):
                if layer.kind == "relu":
                    assert given.masks_relu(i + 1) + given.masks_itself(i) == 1
                if given.fuses_pool(i):
                    assert not given.is_window(i + 2)
                    assert given.fuses_relu(i)
                    assert given.releases_relu(i + 2)


@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
def test_a_pool_computes_the_relu_below_it_unless_a_loss_observes_that(pooling: str) -> None:
    """conv1_2 and conv2_2 are below pools; conv1_1 and conv2_1 are not."""

    def found(*observed: str) -> set[str]:
        made = plan("relu3_1", *observed, pooling=pooling, winograd=False)
        return {layer.name for i, layer in enumerate(made.chain) if made.pools_relu(i)}

    assert found() == {"conv1_2", "conv2_2"}
    assert found("relu1_1", "pool1") == {"conv1_2", "conv2_2"}
    assert found("relu1_2") == {"conv2_2"}
    assert found("conv2_2") == {"conv1_2"}
