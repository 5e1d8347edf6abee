"""The wheel: what is installed with SceneRL, and that it works from there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import scenerl

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the files of the wheel."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_has_every_recipe_profile_and_data_file(installed):
    for path in (ROOT / "recipes").rglob("*.yaml"):
        assert (installed / "scenerl" / path.relative_to(ROOT)).is_file(), path
    package = ROOT / "src" / "scenerl"
    for path in package.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (installed / "scenerl" / path.relative_to(package)).is_file(), path
    assert (installed / "scenerl" / "py.typed").is_file()


def test_recipes_and_profiles_work_where_it_is_installed(installed, tmp_path):
    words = ["launch", "recipes/r1_sgg/sft_qwen2vl7b_psg.yaml", "--profile", "4x80gb", "--print"]
    env = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "scenerl", *words]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    recipe = installed / "scenerl" / "recipes" / "r1_sgg" / "sft_qwen2vl7b_psg.yaml"
    profile = installed / "scenerl" / "recipes" / "profiles" / "accelerate" / "fsdp2.yaml"
    assert f"--config {recipe}" in done.stdout and str(profile) in done.stdout


def test_the_citation_is_of_this_version_and_names_what_the_readme_names():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == scenerl.__version__
    cited = {re.search(r"\d{4}\.\d{5}", entry["url"])[0] for entry in citation["references"]}
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Licence and citation")[1]
    assert cited == set(re.findall(r"\d{4}\.\d{5}", section))
