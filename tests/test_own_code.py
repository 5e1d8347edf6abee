"""Functions of one's own as rewards and data sets: docs/own_code.md as it stands, and what can be wrong with them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from scenerl import data
from scenerl.cli import main
from scenerl.commands import parse
from scenerl.errors import UserError
from scenerl.metrics.file import read_metrics
from scenerl.plugins import keep_code
from scenerl.report.tables import metric_table
from scenerl.rewards import score_text, select_rewards

PAGE = (Path(__file__).parents[1] / "docs" / "own_code.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))
ROW = {
    "image_id": "1", "width": 100, "height": 100, "relationships": [],
    "objects": [{"id": "hand.1", "bbox": [0, 0, 50, 50]}, {"id": "cup.2", "bbox": [50, 50, 100, 100]}],
}  # fmt: skip
HALF = json.dumps({"objects": [{"id": "hand.1", "bbox": [0, 0, 500, 250]}], "relationships": []})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The page's files in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (56, 56)).save("images/a.png")
    Path("train.csv").write_text("a.png,56,56,hand,1,2,30,40\na.png,56,56,cup,5,5,9,9\n")
    return tmp_path


def test_the_pages_reward_scores(folder, capsys):
    assert score_text(HALF, ROW, ["my_rewards.py:hands_only"])["hands_only"] == pytest.approx(0.5)
    assert score_text("", ROW, ["my_rewards.py:hands_only"])["hands_only"] == 0
    Path("answers.jsonl").write_text(json.dumps({**ROW, "answer": HALF}) + "\n")
    assert main(["score", "answers.jsonl", "--rewards", "hard_recall", "my_rewards.py:hands_only"]) == 0
    assert json.loads(capsys.readouterr().out)["rewards"] == {"hard_recall": 1.0, "hands_only": pytest.approx(0.5)}


def test_the_pages_data_set_is_read_and_checked(folder, capsys):
    assert main(["data", "check", "my_data.py:read", "--split", "train"]) == 0
    assert "2 rows, 0 bad rows" in capsys.readouterr().out
    first, second = data.load("my_data.py:read")
    assert (first.image_id, first.graph.objects[0].label, first.image) == ("a.png-0", "hand", folder / "images/a.png")
    Path("train.csv").write_text("a.png,56,56,hand,30,2,1,40\n")
    with pytest.raises(UserError, match=r"my_data.py:read, row 1: the box of objects\[0\] .* must have x1 < x2"):
        list(data.load("my_data.py:read"))


@pytest.mark.parametrize(
    "name, said",
    [
        ("missing.py:reward", "missing.py:reward: there is no file"),
        ("own.py:other", "own.py has no function 'other'"),
        ("own.py:NUMBER", "own.py has no function 'NUMBER'"),
        ("own.py:format", "'format' is a reward of scenerl already"),
        ("broken.py:reward", "broken.py: cannot be executed: ZeroDivisionError: division by zero (line 2 of"),
        ("hard_recal", "unknown reward 'hard_recal' (did you mean hard_recall"),
    ],
)
def test_what_is_no_reward_is_named(name, said, folder):
    Path("own.py").write_text("NUMBER = 1\nformat = lambda comparison: 1\n")
    Path("broken.py").write_text("\n1 / 0\n")
    with pytest.raises(UserError, match=re.escape(said)):
        select_rewards([name])
    with pytest.raises(UserError, match="reward 'hands_only' is given twice"):
        select_rewards(["my_rewards.py:hands_only"] * 2)


@pytest.mark.parametrize("value", ["None", "float('nan')", "[0.5, 1]", "'good'", "'0.5'"])
def test_a_value_that_is_no_number_ends_the_run(value, folder):
    Path("own.py").write_text(f"def reward_{abs(hash(value))}(comparison):\n    return {value}\n")
    with pytest.raises(UserError, match="for one answer; a reward is one finite number"):
        (folder / "own.py").rename(own := folder / f"own_{abs(hash(value))}.py")
        score_text(HALF, ROW, [f"{own.name}:reward_{abs(hash(value))}"])


ROWS = [
    {**ROW, "answer": HALF},  # the hand is found at IoU 0.5, the cup of 50 x 50 in 100 x 100 pixels is missed
    {**ROW, "image_id": "2", "answer": "nothing"},  # both of 2,500 pixels are missed
    {**ROW, "image_id": "3", "objects": [], "answer": HALF},  # nothing to find: does not count
]


def evaluated(*words) -> int:
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return main(["eval", "answers.jsonl", "--data", "answers.jsonl", "--resamples", "50", *words])


def test_the_pages_metric_is_evaluated(folder, capsys):
    own = "my_metrics.py:missed_area"
    assert evaluated("--metrics", own, "--out", "metrics.json") == 0
    shown = capsys.readouterr().out
    assert "missed_area" in shown and "0.3750" in shown and "triplet_f1" in shown
    content = json.loads(Path("metrics.json").read_text())
    found = content["metrics"]["missed_area"]
    assert (found["value"], found["support"]) == (pytest.approx((0.25 + 0.5) / 2), 2)
    assert 0.25 <= found["interval"][0] <= found["interval"][1] <= 0.5
    assert list(content["options"]["own_metrics"]) == [own]
    table = metric_table("test", [("model", 0, read_metrics(Path("metrics.json"), "model"))])
    assert "missed_area" in [column.title for column in table.columns]
    assert evaluated("--metrics", "failure_rate", own, "--out", "table.csv") == 0
    assert Path("table.csv").read_text().splitlines()[0].endswith("missed_area,missed_area_low,missed_area_high")
    capsys.readouterr()
    assert (
        main(["eval", "--compare", "answers.jsonl", "answers.jsonl", "--data", "answers.jsonl", "--metrics", own]) == 0
    )
    assert "missed_area" in capsys.readouterr().out


def test_a_reward_is_a_metric_too_and_sees_the_text(folder, capsys):
    Path("length.py").write_text("def letters(comparison):\n    return len(comparison.text)\n")
    assert evaluated("--metrics", "Recall", "length.py:letters", "my_rewards.py:hands_only", "--out", "m.json") == 0
    found = json.loads(Path("m.json").read_text())["metrics"]
    assert found["letters"]["value"] == pytest.approx((2 * len(HALF) + len("nothing")) / 3)
    assert found["hands_only"]["value"] == pytest.approx((0.5 + 0 + 1) / 3)  # no hand is annotated in the third


@pytest.mark.parametrize(
    "code, said",
    [
        ("def Recall(comparison):\n    return 1", "'Recall' is a metric of scenerl already"),
        (
            "def own(comparison):\n    return 1 / len(comparison.predicted.objects)",
            "fails on an answer that cannot be p",
        ),
        ("def own(comparison):\n    return float('nan')", "returned nan for one image; a metric is one finite number"),
        ("def own(comparison):\n    return 'good'", "returned 'good' for one image"),
        ("def own(comparison):\n    return '0.5'", "returned '0.5' for one image"),
        ("def other(comparison):\n    return 1", "has no function 'own'"),
    ],
)
def test_what_is_no_metric_ends_in_one_line(code, said, folder, capsys):
    path = Path(f"no_{len(code)}_{len(said)}.py")
    path.write_text(code + "\n")
    name = "Recall" if "Recall" in code else "own"
    assert evaluated("--metrics", f"{path}:{name}") == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_run_keeps_the_code_and_refuses_another(folder):
    names = ["format", "my_rewards.py:hands_only", "my_data.py:read", "my_metrics.py:missed_area"]
    keep_code(folder / "run", names)
    keep_code(folder / "run", names)
    assert sorted(path.read_text() for path in (folder / "run" / "code").iterdir()) == sorted(FILES.values())
    Path("my_rewards.py").write_text(FILES["my_rewards.py"] + "\n")
    with pytest.raises(UserError, match="run: belongs to another run; my_rewards.py is not as it was"):
        keep_code(folder / "run", names)


def test_a_recipe_with_it_goes_through_launch(folder, capsys):
    """The job script runs in the folder in which it was submitted, so that the name means the same file there."""
    Path("grpo_hands.yaml").write_text(
        "model: runs/sft\ndata: my_data.py:read\nout: runs/hands\nrewards: [format, my_rewards.py:hands_only]\n"
        "global_batch_size: 8\nnum_generations: 8\n"
    )
    assert main(["launch", "grpo_hands.yaml", "--profile", "1x24gb", "--print", "--slurm"]) == 0
    assert "grpo --config grpo_hands.yaml" in capsys.readouterr().out
    options, _ = parse("grpo", ["--config", "grpo_hands.yaml"])
    assert list(select_rewards(options.rewards)) == ["format", "hands_only"]
    assert [example.image_id for example in data.load(options.data)] == ["a.png-0", "a.png-1"]


def test_grpo_trains_with_it_and_checks_it_first(folder, base, rows, capsys):
    pytest.importorskip("trl")
    from training.small_run import QUICK_GRPO, read_rows, words

    line = ["grpo", "--model", str(base), "--data", str(rows), *words({**QUICK_GRPO, "max_steps": 1})]
    Path("fails.py").write_text("def on_failures(comparison):\n    return 1 / len(comparison.predicted.objects)\n")
    assert main([*line, "--out", "run", "--rewards", "format", "fails.py:on_failures"]) == 2
    said = capsys.readouterr().err
    assert "fails on an answer that cannot be parsed: ZeroDivisionError" in said and "line 2 of" in said
    assert main([*line, "--out", "run", "--fresh", "--rewards", "format", "my_rewards.py:hands_only"]) == 0
    assert "rewards/hands_only/mean" in read_rows(folder / "run" / "log.jsonl")[0]
    assert len(list((folder / "run" / "code").iterdir())) == 1
