"""The files around the code agree with it and with each other: workflows, versions, citation, templates, policies."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fastnst
from tools.wheel import audit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[2]

if not (ROOT / ".github").exists():
    pytest.skip("needs a checkout", allow_module_level=True)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

workflows = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: str | Path) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def jobs(path: Path) -> dict[str, Any]:
    return dict(read(path)["jobs"])


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in jobs(path).values():
        yield from job["steps"]


def make_targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@workflows
def test_actions_are_pinned_by_digest_with_their_version(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"[\w/.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_an_action_has_one_version() -> None:
    found: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for action in re.findall(r"uses: (.*)", path.read_text()):
            found.setdefault(action.partition("@")[0], set()).add(action)
    assert {name: versions for name, versions in found.items() if len(versions) > 1} == {}


@workflows
def test_workflows_run_targets_of_the_makefile(path: Path) -> None:
    named = {
        target for step in steps(path) for target in re.findall(r"^make ([\w-]+)", step.get("run", ""), re.MULTILINE)
    }
    named |= set(jobs(path).get("weekly", {}).get("strategy", {}).get("matrix", {}).get("target", []))
    assert named <= make_targets()
    if path.stem == "tests":
        assert named >= {"lint", "docs-check", "test", "test-all", "asan", "tsan"}


@workflows
def test_workflows_have_few_rights_and_an_end(path: Path) -> None:
    assert read(path)["permissions"] == {"contents": "read"}
    assert read(path)["concurrency"]["group"]
    for name, job in jobs(path).items():
        assert job.get("permissions", {}) == ({"id-token": "write"} if name == "publish" else {}), name
        assert job["timeout-minutes"] > 0, name


def test_only_a_tag_publishes_and_only_what_was_built() -> None:
    workflow = read(".github/workflows/wheels.yml")
    publish = workflow["jobs"]["publish"]
    assert publish["if"] == "startsWith(github.ref, 'refs/tags/')"
    assert set(publish["needs"]) == {"sdist", "wheel"}
    assert publish["environment"] == "pypi"
    assert not any("run" in step for step in publish["steps"])


def test_no_value_of_an_event_is_pasted_into_a_shell() -> None:
    for path in WORKFLOWS:
        for step in steps(path):
            assert "${{" not in step.get("run", ""), step


def test_the_torch_of_the_workflows_is_that_of_the_makefile() -> None:
    default = re.search(r"^TORCH \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert default
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert set(re.findall(r"torch==[\d.]+\d", text)) == {default[1]}


def test_pre_commit_has_the_versions_of_the_extra_lint() -> None:
    pinned = dict(word.split("==") for word in PROJECT["project"]["optional-dependencies"]["lint"] if "==" in word)
    hooks = {
        Path(repo["repo"]).name.removeprefix("mirrors-").removesuffix("-pre-commit"): repo["rev"].removeprefix("v")
        for repo in read(".pre-commit-config.yaml")["repos"]
        if repo["repo"] != "local"
    }
    assert hooks == {name: version for name, version in pinned.items() if name != "mypy"}


def releases() -> list[tuple[str, str]]:
    """Versions of the changelog with their dates, the newest first."""
    return re.findall(r"^## (\S+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## .*$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert len(releases()) == len(headings)
    assert releases()[0][0] == fastnst.__version__
    for version, date in releases():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d|not released", date), version
    kinds = re.findall(r"^### (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    version, date = releases()[0]
    assert citation["version"] == version
    assert str(citation.get("date-released", "not released")) == date
    assert citation["references"][0]["doi"] == "10.48550/arXiv.1508.06576"


def test_forms_ask_for_what_info_prints() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*_*.yml"))
    assert len(forms) == 2
    for form in forms:
        labels = [part["attributes"].get("label", "") for part in read(form)["body"]]
        assert "What does `fastnst info` print?" in labels, form.name


def test_links_of_templates_lead_to_files() -> None:
    for path in (ROOT / ".github").rglob("*"):
        for target in re.findall(r"\]\(\.\./([^)]+)\)", path.read_text() if path.is_file() else ""):
            assert (ROOT / target.removeprefix("blob/main/")).exists(), f"{path.name}: {target}"


def test_the_policy_names_what_there_is() -> None:
    text = (ROOT / "docs" / "versioning.md").read_text()
    paths = [
        path for folder in ("fastnst", "csrc") for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".cpp")
    ]
    sources = "".join(path.read_text() for path in paths)
    variables = set(re.findall(r"`(FASTNST_\w+)`", text))
    assert {"FASTNST_CACHE", "FASTNST_CPU"} <= variables
    assert {name for name in variables if f'"{name}"' not in sources} == set()


def test_wheels_are_built_with_the_oldest_python_and_what_builds_them_exists() -> None:
    table = PROJECT["tool"]["cibuildwheel"]
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=3.")
    assert table["build"] == f"cp3{oldest}-*"
    excluded = re.findall(r"--exclude (\S+)", table["linux"]["repair-wheel-command"])
    assert excluded == list(audit.TORCH)
    for part in table["overrides"]:
        assert "TORCH_CUDA_ARCH_LIST" not in part["environment"]  # those of setup.py
        if "before-all" in part:
            assert (ROOT / part["before-all"].split()[0]).exists()


def test_windows_is_refused_in_one_line() -> None:
    """As on Windows, as far as setup.py can tell."""
    code = "import runpy, sys, sysconfig, setuptools, torch.utils.cpp_extension; sysconfig.get_config_vars(); "
    code += "sys.argv[1:] = ['build_ext']; sys.platform = 'win32'; runpy.run_path('setup.py', run_name='__main__')"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("fastnst: no build for Windows: ")
    assert "Traceback" not in run.stderr


def test_every_file_of_the_package_is_in_a_wheel() -> None:
    """Files other than modules are named by patterns in pyproject.toml."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["fastnst"]
    package = ROOT / "fastnst"
    taken = {path for pattern in patterns for path in package.glob(pattern)}
    listed = subprocess.run(["git", "ls-files", "fastnst"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = {ROOT / name for name in listed.splitlines() if not name.endswith(".py")}
    assert any(path.suffix == ".js" for path in files)
    assert sorted(files - taken) == []
