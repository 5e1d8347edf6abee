"""Predictions that `predict` did not write, read as `eval` reads them, and put into rows as `predict` writes them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from scenerl.data.jsonl import read_rows, write_jsonl
from scenerl.errors import DataError
from scenerl.evaluate.evaluation import Evaluation
from scenerl.evaluate.models import Model
from scenerl.predictions.pairing import MISSING
from scenerl.predictions.row import encode_graph
from scenerl.report.inputs import Inputs


def is_own(model: Model) -> bool:
    """Whether a file begins with a row as `predict` writes it."""
    if model.options.input != "auto" or not model.path.is_file() or model.path.suffix != ".jsonl":
        return False
    try:
        return {"image_id", "status"} <= next((row for _, row, wrong in read_rows(model.path) if not wrong), {}).keys()
    except DataError:
        return False


def as_rows(inputs: Inputs, folder: Path) -> Inputs:
    """The inputs with files in ``folder`` in place of those that `predict` did not write; they are read against the
    last target, which the gallery shows. What was recognised, and warnings, are printed.

    Raises:
        UserError: a file or a row that cannot be used; the message names it.
    """
    stages = []
    for number, stage in enumerate(inputs.stages):
        model = inputs.models.get(stage.name)
        if model is None or is_own(model):
            stages.append(stage)
            continue
        evaluation = Evaluation(model.options)
        answers: dict[str, str | None] = {}
        pairs, _ = evaluation.pairs(model, answers)
        rows = [
            {
                "image_id": pair.image_id,
                "sample": 0,
                "answer": answers.get(pair.image_id),
                "status": pair.result.status,
                "issues": [asdict(issue) for issue in pair.result.issues],
                "graph": pair.result.graph and encode_graph(pair.result.graph),
            }
            for pair in pairs
            if pair.result is not MISSING
        ]
        path = folder / f"{number}.jsonl"
        write_jsonl(path, rows)
        for sentence in (*evaluation.recognised.get(model.name, ()), *evaluation.warnings, *evaluation.unread):
            print(f"{stage.name}: {sentence}")
        stages.append(stage.model_copy(update={"predictions": path}))
    return replace(inputs, stages=tuple(stages))
