"""Runs with losses of several layers: stages, checkpoints, memory and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import same, stopping
from support.graphs import Rerun
from support.pictures import samples, tiny
from torch import Tensor

import fastnst
from fastnst.config.settings import Settings
from fastnst.errors import CheckpointError, OutOfMemoryError, UsageError
from fastnst.losses.joint import IMAGE, JointLoss, Stage, strotss
from fastnst.losses.style import register, registry
from fastnst.network import ModuleEncoder, vgg
from fastnst.optim.cuda_graph import StepCapture
from fastnst.run import memory_limits
from fastnst.run.checkpoint import Checkpoint
from fastnst.run.memory_model import Workload
from fastnst.run.stylizer import Stylizer, stylize

pytestmark = pytest.mark.usefixtures("weights_read_once")
STEPS = 4
NNST: dict[str, Any] = {"style_loss": "nnst", "content_weight": 0.0, "style_weight": 1.0}
STROTSS: dict[str, Any] = {"style_loss": "strotss", "content_loss": "self_similarity", "style_weight": 1.0}


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strotss, "STYLE_SAMPLES", 60)


def settings_of(**changes: Any) -> Settings:
    usual = {"optimizer": "adam_pyramid", "learning_rate": 1.0, "size": 36, "scales": (24, 36), "steps": STEPS}
    return tiny(**{**usual, "carry": False, **changes})


def styled(settings: Settings, **more: Any) -> fastnst.Result:
    return stylize(samples(), samples(seed=2), settings=settings, **more)


@pytest.mark.parametrize("changes", [NNST, STROTSS], ids=["nnst", "strotss"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_lowers_the_loss(changes: dict[str, Any], precision: str) -> None:
    result = styled(settings_of(**changes, precision=precision, steps=8))
    first, *_, last = result.trace[0]
    name = changes["style_loss"]
    assert last.style[name] < first.style[name]
    assert set(first.style) == {name}


@pytest.mark.parametrize("changes", [NNST, STROTSS], ids=["nnst", "strotss"])
@pytest.mark.parametrize("at", [1, STEPS + 1, STEPS + 3])
def test_a_stopped_run_resumes_bit_for_bit(changes: dict[str, Any], at: int, tmp_path: Path) -> None:
    """In the second scale, NNST depends on the image that the scale started from, and both on the step."""
    settings, file = settings_of(**changes, average=0.9), tmp_path / "run.ckpt"
    whole = styled(settings)
    styled(settings, checkpoint=file, callback=stopping(at))
    assert same(styled(settings, checkpoint=file, resume=True), whole)
    assert same(styled(settings, checkpoint=file, resume=True), whole)  # the finished run


def test_a_checkpoint_of_another_loss_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    styled(settings_of(**NNST), checkpoint=file, callback=stopping(2))
    with pytest.raises(CheckpointError, match=r"of a run with other settings: style_loss was .nnst., is"):
        styled(settings_of(**NNST).replace(style_loss="strotss"), checkpoint=file, resume=True)


class Recorder(JointLoss):
    """Compares means, and keeps the stages and starts that it was called with."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.starts: list[Tensor] = []

    def target(self, features: Any, stage: Stage) -> tuple[Tensor, ...]:
        return (self._means(features, stage),)

    def begin(self, target: Any, content: Tensor, start: Tensor, measure: Any, stage: Stage) -> Any:
        assert measure(content)[IMAGE].abs().max() <= 0.5
        self.starts.append(start.clone())
        return target

    def loss(self, features: Any, target: tuple[Tensor, ...], stage: Stage) -> Tensor:
        self.stages.append(stage)
        return (self._means(features, stage) - target[0]).square().mean()

    def _means(self, features: Any, stage: Stage) -> Tensor:
        return torch.cat([features[name].float().mean((2, 3))[0] for name in (IMAGE, *stage.weights)])


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.setattr(registry, "_registered", {})
    found = Recorder()
    register("recorder", found)
    return found


def test_a_registered_loss_is_told_scale_step_and_start(recorder: Recorder) -> None:
    seen: list[Tensor] = []
    result = styled(
        settings_of(style_loss="recorder", seed=7, steps=(2, 3)), callback=lambda step: seen.append(step.image.clone())
    )
    told = [(stage.scale, stage.scales, stage.step, stage.steps) for stage in recorder.stages]
    assert told == [(1, 2, 1, 2), (1, 2, 2, 2), (1, 2, 3, 2), (2, 2, 1, 3), (2, 2, 2, 3), (2, 2, 3, 3), (2, 2, 4, 3)]
    assert {stage.seed for stage in recorder.stages} == {7}
    assert {tuple(stage.weights.items()) for stage in recorder.stages} == {(("relu1_1", 1.0), ("relu2_1", 1.0))}
    # Once when the objective is made, once when the scale begins.
    assert [start.shape[2:] for start in recorder.starts] == [(18, 24), (18, 24), (27, 36), (27, 36)]
    assert len(result.trace[1]) == 3


def test_steps_are_not_captured_as_a_graph(recorder: Recorder) -> None:
    backend = Rerun()
    stylizer = Stylizer(settings_of(style_loss="recorder"))
    object.__setattr__(stylizer.setup, "capture", StepCapture(backend))
    stylizer.run(stylizer.load_scene(samples(), samples(seed=2)))
    assert backend.captures == 0
    assert len({stage.step for stage in recorder.stages}) == STEPS + 1


def encoder() -> ModuleEncoder:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, stride=2, padding=1)
    )
    return ModuleEncoder(module.eval(), ["1", "2"])


MODULE: dict[str, Any] = {"content_layers": (("2", 1.0),), "style_layers": (("1", 1.0), ("2", 1.0))}


def test_a_module_runs_as_network_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings = settings_of(**MODULE, init="noise")

    def run(**more: Any) -> fastnst.Result:
        stylizer = Stylizer(settings, network=encoder())
        return stylizer.run(stylizer.load_scene(samples(), samples(seed=2)), **more)

    whole = run()
    assert whole.trace[1][-1].total < whole.trace[0][0].total
    with Checkpoint(tmp_path / "run.ckpt") as checkpoint:
        run(callback=stopping(STEPS + 2), checkpoint=checkpoint)
    with Checkpoint(tmp_path / "run.ckpt", resume=True) as checkpoint:
        assert same(run(checkpoint=checkpoint), whole)
    with torch.no_grad():
        other = encoder()
        other.module[0].weight[0, 0, 0, 0] += 1  # type: ignore[index, union-attr]
    stylizer = Stylizer(settings, network=other)
    scene = stylizer.load_scene(samples(), samples(seed=2))
    with Checkpoint(tmp_path / "run.ckpt", resume=True) as checkpoint, pytest.raises(CheckpointError, match="weights"):
        stylizer.run(scene, checkpoint=checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {**MODULE, "tiles": "on"},
            "a module has no strips, since its receptive fields are not known; use tiles",
        ),
        ({}, "layer 'relu2_1' is not among the layers this network was built for"),
    ],
)
def test_what_a_module_cannot_do_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Stylizer(settings_of(**changes), network=encoder())
    assert str(caught.value).startswith(message)


DEEP = tuple((name, 1.0) for name in ("relu1_1", "relu2_1", "relu3_1", "relu4_1"))


def workload(side: int, **changes: Any) -> Workload:
    settings = Settings.from_preset(
        **{"convolution": "winograd", "style_layers": DEEP, "optimizer": "adam", "size": side, **NNST, **changes}
    )
    chain = vgg.chain_to("vgg19", settings.layer_names())
    return Workload(chain, side, side, torch.bfloat16, settings)


@pytest.mark.parametrize("tiles", ["auto", "off"])
def test_a_picture_that_is_too_large_is_refused_with_a_size_that_fits_and_no_strips(tiles: str) -> None:
    most = workload(512).bytes()
    work = workload(1024, memory=most, tiles=tiles)
    with pytest.raises(OutOfMemoryError) as caught:
        memory_limits.choose_rows(work, torch.device("cpu"))
    message = str(caught.value)
    assert "--tiles" not in message
    side = int(message.partition("--size ")[2].split()[0])
    assert 490 <= side <= 512
    assert memory_limits.choose_rows(workload(side, memory=most, tiles=tiles), torch.device("cpu")) is None


def test_the_memory_of_joint_losses_is_counted() -> None:
    """Hypercolumns of four views, of content and replacements, on a quarter of the picture, in bfloat16."""
    channels, positions = 64 + 128 + 256 + 512, 128 * 128
    more = workload(512).terms().exact - workload(512, style_loss="gram").terms().exact
    assert more >= (2 * 4 + 2) * channels * positions * 2
    similar, features = (
        workload(512, **{**STROTSS, "content_layers": DEEP, "content_weight": 1.0, "content_loss": name}).terms().exact
        for name in ("self_similarity", "features")
    )
    assert similar - features >= (64 + 128 // 4 + 256 // 16 + 512 // 64) * 512 * 512 * 2  # those of the content


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({"tiles": "on"}, {}, "style_loss 'nnst' needs the whole picture at once, not strips"),
        ({"normalize_gradients": True}, {}, "style_loss 'nnst' has one gradient for several layers"),
        ({}, {"masks": [samples(seed=1)]}, "style_loss 'nnst' compares whole pictures: use it without masks"),
        ({}, {"style_masks": [samples(seed=1)]}, "style_loss 'nnst' compares whole pictures: use it without style ma"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        styled(settings_of(**NNST, **changes), **more)
    assert str(caught.value).startswith(message)
