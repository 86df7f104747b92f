"""A run with secrets around it: none of them is anywhere in what it writes or says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from llamafarm.cli.main import main

_TOKEN = "hf_" + "aB3dE6gH9jK2mN5pQ8rS" + "tU1vW4xY"
_KEY = "wandb-0123456789abcdef0123"
_PASSWORD = "correct-horse-42-staple"
_SECRETS = (_TOKEN, _KEY, _PASSWORD)
_STRATEGY = """
secretive:
  name: "trained by ${HF_TOKEN} <script>alert(1)</script>"
  components:
    fine_tuner:
      type: pytorch
      config:
        base_model: %s
        dataset: {path: data.jsonl}
        training_args: {max_steps: 2, run_name: "run of ${WANDB_API_KEY}"}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMAFARM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", _TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", _KEY)
    monkeypatch.setenv("DATABASE_PASSWORD", _PASSWORD)
    rows = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(12)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_no_secret_is_in_a_run_directory_or_in_what_is_said(
    here: Path,
    tiny_model_dir: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (here / "strategies.yaml").write_text(_STRATEGY % json.dumps(str(tiny_model_dir)))
    argv = ["train", "--strategy", "secretive", "--output", "run"]
    # What was typed is kept in run.json; a person may have put a token there.
    monkeypatch.setattr(sys, "argv", ["llamafarm", *argv, f"--password={_PASSWORD}"])
    assert main(argv) == 0, capfd.readouterr().err
    said = capfd.readouterr()
    files = [path for path in (here / "run").rglob("*") if path.is_file()]
    assert len(files) > 10
    found = [
        (path.name, secret)
        for path in files
        for secret in _SECRETS
        if secret.encode() in path.read_bytes()
    ]
    assert found == []
    assert not any(secret in said.out + said.err for secret in _SECRETS)
    assert "${HF_TOKEN}" in (here / "run" / "strategy.yaml").read_text()
    card = (here / "run" / "final_model" / "README.md").read_text()
    assert "<script>" not in card
    assert "&lt;script&gt;" in card


def test_an_error_does_not_repeat_a_secret(
    here: Path, tiny_model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = f"--dataset=https://me:{_PASSWORD}@example.org/{_TOKEN}.jsonl"
    assert main(["train", name, "--base-model", str(tiny_model_dir), "--output", "run"]) == 2
    said = capfd.readouterr().err
    assert "error:" in said
    assert not any(secret in said for secret in _SECRETS)
