"""``fastnst weights`` and ``fastnst info``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from fastnst.ops import NAMES
from fastnst.weights import catalog
from fastnst.weights.entries import BUNDLED

Run = Callable[..., tuple[int, str, str]]


def test_list_shows_every_entry_and_where_it_is(run: Run, tmp_path: Path) -> None:
    entry = next(entry for entry in catalog() if entry.name == "vgg16-torchvision")
    entry.path.parent.mkdir()
    entry.path.touch()
    code, out, err = run("weights", "list")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert (code, err) == (0, "")
    assert list(lines) == ["NAME", *(entry.name for entry in catalog())]
    assert "bundled" in lines["vgg19"]
    assert "cached" in lines["vgg16-torchvision"]
    assert "to fetch" in lines["vgg19-torchvision"]
    assert all(entry.license in lines[entry.name] for entry in catalog())
    assert run("weights")[1] == out


def test_list_as_json(run: Run) -> None:
    entries = json.loads(run("weights", "list", "--json")[1])
    assert [entry["name"] for entry in entries] == [entry.name for entry in catalog()]
    assert entries[0]["where"] == "bundled"


def test_fetching_the_bundled_weights_says_where_they_are(run: Run) -> None:
    assert run("weights", "fetch", "vgg19") == (0, f"{BUNDLED}\n", "")
    assert json.loads(run("weights", "fetch", "vgg19", "--json")[1]) == {"paths": [str(BUNDLED)]}


def test_show_says_what_the_bundled_weights_are(run: Run) -> None:
    code, out, err = run("weights", "show", "vgg19")
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (code, err) == (0, "")
    assert facts["arch"] == "vgg19"
    assert facts["deepest"] == "conv5_1"
    assert facts["convention"] == "caffe"
    assert "CC BY 4.0" in facts["license"]
    assert facts["conv1_1"] == "64 x 3 x 3 x 3"
    assert facts["conv5_1"] == "512 x 512 x 3 x 3"


def test_show_describes_weights_that_are_not_cached_without_a_download(run: Run, tmp_path: Path) -> None:
    facts = json.loads(run("weights", "show", "vgg16-torchvision", "--json")[1])
    assert facts["file"] == "to fetch: fastnst weights fetch vgg16-torchvision"
    assert facts["convs"]["conv5_3"] == [512, 512, 3, 3]
    assert not (tmp_path / "cache").exists()


def test_show_describes_a_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    state = {"features.0.weight": torch.rand(64, 3, 3, 3), "features.0.bias": torch.rand(64)}
    torch.save(state, path)
    code, out, _ = run("weights", "show", path, "--arch", "vgg16")
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0
    assert (facts["arch"], facts["deepest"], facts["file"]) == ("vgg16", "conv1_1", str(path))
    assert "0.0171248" in facts["input"]
    code, _, err = run("weights", "show", path)
    assert (code, err.count("\n")) == (1, 1)
    assert "arch" in err


def test_info_names_what_serves_each_op(run: Run) -> None:
    code, out, err = run("info")
    assert (code, err) == (0, "")
    for name in NAMES:
        assert f"{name} on cpu" in out
    facts = json.loads(run("info", "--json")[1])
    assert set(facts["kernels"]["cpu"]) == set(NAMES)
    assert facts["torch"] == str(torch.__version__)
    assert facts["threads"] == torch.get_num_threads()
    assert facts["precision"] in ("bfloat16", "float32")
    assert facts["graph"] == (facts["device"] == "cuda")
    assert facts["weights_folder"].endswith("cache")
    assert facts["instruction_set"] in out
    assert facts["built"]["built_with"] in out
