"""As one of several processes: the metrics of a validation, and how many images this process answered. See its test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from scenerl.training import sft, validation
from scenerl.training.engine import leave_processes
from scenerl.training.mixture import Part
from training.small_run import QUICK, STYLE, examples_of, load_checkpoint


def main(model: str, rows: str, out: str) -> None:
    torch.set_num_threads(1)
    Path(out).mkdir(parents=True, exist_ok=True)
    examples = examples_of(Path(rows))
    checkpoint = load_checkpoint(Path(model))
    conversation = checkpoint.conversation(STYLE)
    held_out = validation.Validation([Part("", examples[:5], conversation)], checkpoint, max_new_tokens=60)
    args = sft.SFTConfig(output_dir=out, max_length=None, use_cpu=True, per_device_eval_batch_size=2, **QUICK)
    trainer = sft.build_trainer(checkpoint, conversation, examples, args, validation=held_out)
    answered = []
    answer = validation._answers
    validation._answers = lambda trainer, held_out, part: answered.extend(part) or answer(trainer, held_out, part)
    found = trainer.evaluate()
    found = {key: value for key, value in found.items() if not key.endswith(("time", "_per_second"))}
    path = Path(out) / f"found_{trainer.accelerator.process_index}.json"
    path.write_text(json.dumps({"found": found, "answered": [example.image_id for example in answered]}))
    leave_processes()


if __name__ == "__main__":
    main(*sys.argv[1:])
