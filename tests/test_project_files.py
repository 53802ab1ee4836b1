"""The files around the package agree with it: versions, Pythons, hosted checks, and paths that documents name."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import cifarnet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_one(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["name"] and "pull_request" in workflow[True]  # `on` is YAML 1.1's word for true
    for job in workflow["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"]
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))
            scripts = re.findall(r"bash (\S+)", step.get("run", ""))
            assert [script for script in scripts if not (ROOT / script).exists()] == []


def test_the_pythons_that_are_declared_are_tested():
    matrix = yaml.safe_load(WORKFLOWS[0].read_text())["jobs"]["check"]["strategy"]["matrix"]
    declared = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert matrix["python"] == declared and PROJECT["requires-python"] == f">={declared[0]}"
    assert [system.split("-")[0] for system in matrix["os"]] == ["ubuntu", "macos"]


def test_the_hooks_run_the_projects_own_versions():
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system" and hook["entry"].startswith(".venv/bin/")


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_an_issue_form_is_one(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"] and form["description"]
    names = [field["id"] for field in form["body"]]
    assert len(set(names)) == len(names) and all(field["attributes"]["label"] for field in form["body"])


def test_one_version_everywhere():
    """What is cited is the newest release; the code is that one, or on the way to the next."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.search(r"^## ([\d.]+) - 20", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert citation["version"] == released and citation["license"] == PROJECT["license"]
    here, on_the_way = re.fullmatch(r"(\d+\.\d+\.\d+)(\.dev\d+)?", cifarnet.__version__).groups()
    ahead = [int(part) for part in here.split(".")] > [int(part) for part in released.split(".")]
    assert ahead if on_the_way else here == released


def headings(path):
    """The names by which GitHub links to a page's headings."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    titles = [re.sub(r"[`*]", "", title).lower() for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return [re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_document_names_are_there(path):
    text = path.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text)
    assert [file for file, _ in links if not (path.parent / file).exists()] == []
    within = [(path.parent / file if file else path, heading) for file, heading in links if heading]
    assert [(target.name, heading) for target, heading in within if heading not in headings(target)] == []
    named = re.findall(r"(?<![\w./-])((?:cifarnet|csrc|docs|scripts|tests|\.ci|\.github)/[\w./-]*\w/?)", text)
    assert sorted({name for name in named if not (ROOT / name).exists()}) == []
