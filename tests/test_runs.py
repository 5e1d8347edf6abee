"""Run folders: whose they are, and what may be emptied."""

from __future__ import annotations

import pytest

from scenerl import runs
from scenerl.commands.sft import SFTOptions
from scenerl.config import load_yaml


def test_claimed_folder_goes_on_refuses_and_starts_over(tmp_path):
    folder = tmp_path / "run"
    assert runs.claim_folder(folder, {"seed": 0, "logging_steps": 1}) is False
    (folder / "sft").mkdir()
    assert runs.claim_folder(folder, {"seed": 0, "logging_steps": 5}, free=["logging_steps"]) is True
    assert load_yaml(folder / "config.yaml") == {"seed": 0, "logging_steps": 5}
    with pytest.raises(
        ValueError, match=r"run: belongs to another run; differing: seed \(0 there, 1 now\); use --fresh"
    ):
        runs.claim_folder(folder, {"seed": 1, "logging_steps": 5})
    assert (folder / "sft").exists()
    assert runs.claim_folder(folder, {"seed": 1}, fresh=True) is False
    assert not (folder / "sft").exists()


def test_an_option_that_an_earlier_version_did_not_write_was_its_default(tmp_path):
    folder = tmp_path / "run"
    defaults = runs.default_values(SFTOptions)
    assert defaults["muon"] is False and defaults["lora_target_modules"] == [] and "model" not in defaults
    runs.claim_folder(folder, {"model": "m", "seed": 0})
    now = {"model": "m", "seed": 0, "muon": False, "lora_r": 16}
    with pytest.raises(ValueError, match=r"differing: lora_r \(None there, 16 now\), muon \(None there, False now\)"):
        runs.claim_folder(folder, now)
    with pytest.raises(ValueError, match=r"differing: muon \(False there, True now\); use"):
        runs.claim_folder(folder, {**now, "muon": True}, defaults={"muon": False, "lora_r": 16})
    assert runs.claim_folder(folder, now, defaults={"muon": False, "lora_r": 16}) is True
    assert load_yaml(folder / "config.yaml") == now


def test_foreign_folders_are_never_emptied(tmp_path, monkeypatch):
    (tmp_path / "thesis.txt").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(ValueError, match=r"holds files but no config.yaml of an earlier run"):
            runs.claim_folder(tmp_path, {}, fresh=fresh)
    (tmp_path / "config.yaml").write_text("a: 1\n")
    with pytest.raises(ValueError, match="holds files"):
        runs.claim_folder(tmp_path, {}, fresh=True)
    with pytest.raises(ValueError, match="is a file"):
        runs.claim_folder(tmp_path / "thesis.txt", {})
    runs.claim_folder(tmp_path / "run", {})
    (tmp_path / "run" / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "run" / "inner")
    with pytest.raises(ValueError, match="working directory"):
        runs.claim_folder(tmp_path / "run", {}, fresh=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
