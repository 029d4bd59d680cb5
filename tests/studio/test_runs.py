"""Runs of the studio: what they make is what `fastnst.stylize` makes, whatever happened in between."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from clients import Studio, picture, served
from PIL import Image

import fastnst
from fastnst.config.description import settings_from_text


def made_by_the_library(settings: dict[str, str]) -> np.ndarray[Any, Any]:
    """The result of `fastnst.stylize` for the pictures of `Studio.run_of`, in 8 bits by Pillow."""
    content, style = (np.asarray(Image.open(io.BytesIO(picture(seed)))) for seed in (1, 2))
    image = fastnst.stylize(content, style, settings=settings_from_text(settings)).image
    return (image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def test_a_run_from_pictures_to_the_result(studio: Studio) -> None:
    identifier = studio.start(keep_color="yiq")
    job = studio.wait(identifier, "done")
    assert (job["step"], job["steps"], job["scale"], job["scales"]) == (4, 4, 1, 1)
    assert job["size"] == [64, 48]
    assert job["title"] == "photo in the style of painting"
    assert (studio.pixels(identifier) == made_by_the_library(job["settings"])).all()
    trace = studio.get(f"/api/jobs/{identifier}/trace").json()
    assert len(trace["total"]) == 4
    for parts in zip(trace["total"], trace["content"], trace["style"], trace["tv"], strict=True):
        assert parts[0] == pytest.approx(sum(parts[1:]), rel=1e-5)
    assert studio.get(f"/api/jobs/{identifier}/trace", params={"start": 3}).json()["total"] == trace["total"][3:]


def test_formats_of_a_result(shared: Studio) -> None:
    identifier = shared.start()
    shared.wait(identifier, "done")
    png, jpeg = shared.pixels(identifier), shared.pixels(identifier, "jpeg")
    assert np.abs(png.astype(int) - jpeg).mean() < 4
    answer = shared.get(f"/api/jobs/{identifier}/result", params={"format": "tiff", "download": 1})
    assert answer.headers["content-type"] == "image/tiff"
    assert "photo%20in%20the%20style%20of%20painting.tif" in answer.headers["content-disposition"]
    assert answer.content[:2] == b"II"
    thumbnail = Image.open(io.BytesIO(shared.get(f"/api/jobs/{identifier}/thumbnail").content))
    assert thumbnail.format == "JPEG"
    assert max(thumbnail.size) <= 256
    toml = shared.get(f"/api/jobs/{identifier}/settings.toml").text
    assert "size = 64" in toml
    # The picture carries its settings: another run can start from them.
    upload = shared.post(
        "/api/pictures", files={"file": ("out.png", shared.get(f"/api/jobs/{identifier}/result").content)}
    )
    assert upload.json()["settings"].items() >= {"size": "64", "scales": "1", "steps": "4"}.items()


def test_paused_and_resumed_is_as_if_never_paused(studio: Studio) -> None:
    identifier = studio.start(steps="60", size="96")
    studio.wait(identifier, lambda job: job["step"] >= 2)
    assert studio.post(f"/api/jobs/{identifier}/pause").json()["state"] == "pausing"
    paused = studio.wait(identifier, "paused")
    assert 2 <= paused["step"] < 60
    assert studio.get(f"/api/jobs/{identifier}/live").status_code == 200
    assert studio.get(f"/api/jobs/{identifier}/result").status_code == 404
    studio.post(f"/api/jobs/{identifier}/resume")
    seen = {paused["step"]}
    job = studio.wait(identifier, lambda job: seen.add(job["step"]) or job["state"] == "done")
    assert min(seen) == paused["step"]  # no step is taken twice
    assert job["step"] == 60
    assert len(studio.get(f"/api/jobs/{identifier}/trace").json()["total"]) == 60
    assert (studio.pixels(identifier) == made_by_the_library(job["settings"])).all()


def test_stop_keeps_the_picture(studio: Studio) -> None:
    identifier = studio.start(steps="100000")
    studio.wait(identifier, lambda job: job["step"] >= 2)
    studio.post(f"/api/jobs/{identifier}/stop")
    job = studio.wait(identifier, "stopped")
    assert 2 <= job["step"] < 100000
    assert studio.pixels(identifier).shape == (48, 64, 3)
    # Also one that is being paused.
    identifier = studio.start(steps="100000")
    studio.wait(identifier, lambda job: job["step"] >= 2)
    studio.post(f"/api/jobs/{identifier}/pause")
    assert studio.post(f"/api/jobs/{identifier}/stop").status_code == 200
    studio.wait(identifier, "stopped")
    assert studio.pixels(identifier).shape == (48, 64, 3)
    # And one that is paused.
    identifier = studio.start(steps="100000")
    studio.wait(identifier, lambda job: job["step"] >= 2)
    studio.post(f"/api/jobs/{identifier}/pause")
    studio.wait(identifier, "paused")
    studio.post(f"/api/jobs/{identifier}/stop")
    studio.wait(identifier, "stopped")
    assert studio.pixels(identifier).shape == (48, 64, 3)


def test_a_change_while_it_runs_goes_on_from_the_picture(studio: Studio) -> None:
    identifier = studio.start(steps="120", style_weight="0", tv_weight="0", optimizer="adam", learning_rate="1")
    studio.wait(identifier, lambda job: job["step"] >= 5)
    answer = studio.patch(f"/api/jobs/{identifier}", json={"settings": {"style_weight": "2000"}})
    assert answer.json()["state"] == "running"
    job = studio.wait(identifier, "done")
    (change,) = job["changes"]
    assert change["settings"] == {"style_weight": "2000"}
    assert job["settings"]["style_weight"] == "2000"
    assert job["step"] == job["steps"] == 120
    style = studio.get(f"/api/jobs/{identifier}/trace").json()["style"]
    at = change["step"]
    assert len(style) == 120
    assert all(value == 0 for value in style[:at])
    assert all(value > 0 for value in style[at:])
    # Without a style the image stays the content, and its first loss is that of a run that starts there.
    other = studio.start(steps="1", style_weight="2000", tv_weight="0")
    studio.wait(other, "done")
    first = studio.get(f"/api/jobs/{other}/trace").json()["style"][0]
    assert style[at] == pytest.approx(first, rel=0.02)


def test_changes_of_a_paused_run(studio: Studio) -> None:
    identifier = studio.start(steps="40,20", scales="2", size="128", min_scale="64", min_shorter_side="32")
    studio.wait(identifier, lambda job: job["step"] >= 3)
    studio.post(f"/api/jobs/{identifier}/pause")
    paused = studio.wait(identifier, "paused")
    for weight in ("3000", "4000"):
        changed = studio.patch(f"/api/jobs/{identifier}", json={"settings": {"style_weight": weight}}).json()
        assert changed["state"] == "paused"
        assert changed["settings"]["style_weight"] == weight
    studio.post(f"/api/jobs/{identifier}/resume")
    job = studio.wait(identifier, "done")
    assert job["changes"] == [{"step": paused["step"], "settings": {"style_weight": "4000"}}]
    assert (job["step"], job["steps"], job["scale"], job["scales"]) == (60, 60, 2, 2)
    assert job["scale_starts"] == [0, 40]
    assert studio.pixels(identifier).shape == (96, 128, 3)


def test_one_at_a_time_in_order(studio: Studio) -> None:
    first, second, third = (studio.start(steps="30"), studio.start(), studio.start())
    states = [studio.job(one) for one in (first, second, third)]
    assert [job["position"] for job in states] == [None, 0, 1]
    studio.post(f"/api/jobs/{second}/pause")  # leaves the queue
    assert studio.job(second)["state"] == "paused"
    assert studio.job(third)["position"] == 0
    seen = set()
    while studio.job(third)["state"] != "done":
        seen.add(sum(job["state"] in ("running", "stopping") for job in studio.get("/api/jobs").json()["jobs"]))
        time.sleep(0.05)
    assert max(seen) == 1
    assert studio.job(first)["state"] == "done"
    assert studio.job(first)["ended"] <= studio.job(third)["started"]
    assert [job["id"] for job in studio.get("/api/jobs").json()["jobs"]] == [third, second, first]


def test_again_and_delete(studio: Studio) -> None:
    first = studio.start(seed="5")
    studio.wait(first, "done")
    answer = studio.post(f"/api/jobs/{first}/again")
    assert answer.status_code == 201
    second = answer.json()["id"]
    studio.wait(second, "done")
    assert (studio.pixels(first) == studio.pixels(second)).all()
    assert studio.delete(f"/api/jobs/{first}").status_code == 204
    assert studio.get(f"/api/jobs/{first}").status_code == 404
    running = studio.start(steps="100000")
    studio.wait(running, lambda job: job["step"] >= 1)
    content = studio.job(running)["content"]
    assert studio.delete(f"/api/pictures/{content}").status_code == 409
    folder = next(Path(studio.app.state.services.store.folder).glob(f"visitors/*/jobs/{running}"))
    studio.delete(f"/api/jobs/{running}")
    for _ in range(200):
        if not folder.exists():
            break
        time.sleep(0.05)
    assert not folder.exists()
    assert studio.delete(f"/api/pictures/{content}").status_code == 204


def test_a_run_whose_process_is_killed_can_be_resumed(studio: Studio) -> None:
    identifier = studio.start(steps="60", size="96")
    studio.wait(identifier, lambda job: job["step"] >= 1)
    studio.app.state.services.runner.find(*found(studio, identifier)).process.kill()
    job = studio.wait(identifier, "failed")
    assert "by signal 9" in job["error"]
    studio.post(f"/api/jobs/{identifier}/resume")
    job = studio.wait(identifier, "done")
    assert job["error"] is None
    assert (studio.pixels(identifier) == made_by_the_library(job["settings"])).all()


def found(studio: Studio, identifier: str) -> tuple[Any, str]:
    (visitor,) = studio.app.state.services.store.visitors()
    return visitor, identifier


def test_a_studio_that_ends_goes_on_at_the_next_start(tmp_path: Path) -> None:
    with Studio(tmp_path) as studio:
        finished = studio.start()
        studio.wait(finished, "done")
        identifier, waiting = studio.start(steps="80", size="96"), studio.start()
        studio.wait(identifier, lambda job: job["step"] >= 3)
    with Studio(tmp_path) as studio:
        assert studio.pixels(finished).shape == (48, 64, 3)
        job = studio.wait(identifier, "done")
        studio.wait(waiting, "done")
        assert len(studio.get(f"/api/jobs/{identifier}/trace").json()["total"]) == 80
        assert (studio.pixels(identifier) == made_by_the_library(job["settings"])).all()


def test_a_studio_that_is_killed_goes_on_at_the_next_start(tmp_path: Path) -> None:
    with served(tmp_path / "folder") as remote:
        identifier = remote.start(steps="200", size="96")
        remote.wait(identifier, lambda job: job["step"] >= 3)
        remote.process.kill()
    with Studio(tmp_path / "folder") as studio:
        job = studio.wait(identifier, "done")
        assert (studio.pixels(identifier) == made_by_the_library(job["settings"])).all()


def test_a_run_that_cannot_start_says_why(studio: Studio) -> None:
    answer = studio.post(
        "/api/jobs", json=studio.run_of(size="8", content_layers="relu5_1:1", style_layers="relu5_1:1")
    )
    assert answer.status_code == 422
    assert "too small for layer relu5_1" in answer.json()["error"]
    assert studio.get("/api/jobs").json() == {"jobs": []}


def test_a_full_disk_ends_nothing(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastnst.studio import job as records

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    identifier = studio.start(steps="30")
    studio.wait(identifier, lambda job: job["step"] >= 1)
    with monkeypatch.context() as patch:
        patch.setattr(records, "write_json", full)
        patch.setattr(records, "SAVE_SECONDS", 0.0)
        answer = studio.post("/api/jobs", json=studio.run_of())
        assert (answer.status_code, answer.json()["error"]) == (507, "the studio cannot write: No space left on device")
        studio.wait(identifier, "done")
    assert studio.pixels(identifier).shape == (48, 64, 3)
    studio.wait(studio.start(), "done")  # the queue goes on
    assert len(studio.get("/api/jobs").json()["jobs"]) == 2


def test_a_stop_survives_the_end_of_the_studio(tmp_path: Path) -> None:
    with Studio(tmp_path) as studio:
        identifier = studio.start(steps="100000")
        studio.wait(identifier, lambda job: job["step"] >= 2)
        studio.post(f"/api/jobs/{identifier}/stop")
    with Studio(tmp_path) as studio:
        job = studio.wait(identifier, "stopped")
        assert job["step"] < 100000
        assert studio.pixels(identifier).shape == (48, 64, 3)


def test_of_the_plans_that_wait_the_last_is_made(studio: Studio) -> None:
    services = studio.app.state.services
    run = studio.run_of()
    answers: list[Any] = []

    def ask(asked: dict[str, Any]) -> None:
        answers.append(studio.post("/api/plan", json=asked))

    with services.planner._lock:
        threads = []
        for size in ("64", "65", "66"):
            asked = {**run, "settings": {**run["settings"], "size": size}}
            threads.append(
                threading.Thread(target=lambda asked=asked: answers.append(studio.post("/api/plan", json=asked)))
            )
            threads[-1].start()
            time.sleep(0.3)
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    (made,) = [answer.json() for answer in answers if answer.status_code == 200]
    assert made["size"][0] == 66


def test_processes_end_with_a_killed_server(tmp_path: Path) -> None:
    with served(tmp_path) as remote:
        remote.add()
        children = psutil.Process(remote.process.pid).children(recursive=True)
        assert children
        remote.process.kill()
        _gone, left = psutil.wait_procs(children, timeout=20)
    assert left == []
