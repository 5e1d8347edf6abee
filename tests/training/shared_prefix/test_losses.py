"""With shared prompts each of TRL's losses, and what goes with them, gives loss and gradient of TRL's own path.

:data:`~training.shared_prefix.test_trainer.LOSSES` has the losses at a ratio of 1. Here the weights have moved since
the rollout, so that ratios, masks and clips do something.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
from trl import GRPOTrainer
from trl.trainer.utils import split_pixel_values_by_grid

from scenerl.training.shared_prefix.padded_rows import join_images, share_images
from training.shared_prefix.test_trainer import LOSSES, both_ways, build, close, gradients, images_of, of_kind

MOVED = [
    {"loss_type": "vespo"},
    {"loss_type": "luspo"},
    {"multi_objective_aggregation": "normalize_then_sum"},
    {"off_policy_mask_threshold": 0.0},
    {"top_entropy_quantile": 0.2},
]
MOVED_SLOWLY = [
    {"loss_type": "cispo", "epsilon_high": 1.01},
    {"loss_type": "sapo"},
    {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    {"importance_sampling_level": "sequence", "epsilon": 1e-3},
    {"scale_rewards": "batch", "delta": 1.01},
    {"beta": 0.2, "use_bias_correction_kl": True, "loss_type": "grpo"},
]
ENGINE = [
    {"vllm_importance_sampling_mode": "token_mask", "vllm_importance_sampling_clip_max": 1.1},
    {"vllm_importance_sampling_mode": "sequence_truncate"},
]
ENGINE_SLOWLY = [
    {"vllm_importance_sampling_mode": "token_truncate"},
    {"vllm_importance_sampling_mode": "sequence_mask"},
    {"vllm_importance_sampling_mode": "token_truncate", "loss_type": "vespo"},
    {"vllm_importance_sampling_mode": "token_truncate", "off_policy_mask_threshold": 0.0},
]


def cases(quick: list[dict], slow: list[dict]) -> list:
    return [
        pytest.param(
            fields, id="-".join(map(str, fields.values())), marks=[] if fields in quick else [pytest.mark.slow]
        )
        for fields in (*quick, *slow)
    ]


@pytest.fixture(scope="module")
def make(base, examples, tmp_path_factory):
    """Builds a trainer of two groups of three, and its rows."""

    def trainer_of(fields: dict):
        fields = {"per_device_train_batch_size": 6, "num_generations": 3, "temperature": 1.5, **fields}
        trainer = build(of_kind("qwen2_vl", base), examples, tmp_path_factory.mktemp("run"), num_iterations=2, **fields)
        if "multi_objective_aggregation" in fields:
            trainer.reward_funcs.append(lambda completion_ids, **_: [float(ids[0] % 3) for ids in completion_ids])
            trainer.reward_func_names.append("first")
            trainer.reward_processing_classes.append(None)
            trainer.reward_weights = torch.tensor([1.0, 0.5])
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        return trainer, [trainer.train_dataset[index] for index in (0, 2) for _ in range(3)]

    return trainer_of


def roll_out(trainer, rows) -> dict:
    torch.manual_seed(3)
    return trainer._generate_and_score_completions([dict(row) for row in rows])


def move(model) -> None:
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)


def losses_both_ways(trainer, batch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Loss and gradient with shared prompts and on TRL's own path, which are compared."""
    shared = share_images(split_pixel_values_by_grid(batch))

    def compute():
        inputs = shared if trainer.shares_prefix else {**shared, **join_images(images_of(shared))}
        loss = trainer._compute_loss(trainer.model, inputs)
        return loss.detach(), gradients(loss, trainer.model)

    ours, trls = both_ways(trainer, compute)
    # vespo's weight is a power of the ratio of a whole completion, which multiplies the rounding of its tokens
    tolerance = 3e-4 if trainer.loss_type == "vespo" else 1e-5
    torch.testing.assert_close(ours[0], trls[0], rtol=tolerance, atol=1e-6)
    assert trls[1].norm() > 0 and (ours[1] - trls[1]).norm() <= tolerance * trls[1].norm()
    return ours


@pytest.mark.parametrize("fields", cases(MOVED, MOVED_SLOWLY))
def test_loss_and_gradient_are_trls_after_the_weights_have_moved(make, fields):
    trainer, rows = make(fields)
    ours, trls = both_ways(trainer, lambda: roll_out(trainer, rows))
    for key in ("completion_ids", "advantages", "old_per_token_logps"):
        torch.testing.assert_close(ours[key], trls[key], rtol=0, atol=1e-5)
    assert ours["advantages"].abs().min() > 0 or ours["advantages"].abs().sum() > 1
    move(trainer.model)
    loss, gradient = losses_both_ways(trainer, ours)
    # a mask that masks nothing, or everything, would prove nothing
    trainer.off_policy_mask_threshold, trainer.top_entropy_quantile = None, 1.0
    if {"off_policy_mask_threshold", "top_entropy_quantile"} & fields.keys():
        assert not close(gradient, losses_both_ways(trainer, ours)[1])


@pytest.mark.parametrize("fields", cases(ENGINE, ENGINE_SLOWLY))
def test_importance_sampling_of_an_engine_is_trls(make, fields):
    """As with vLLM: the engine's log-probabilities differ a little from the trainer's, and a ratio makes up for it."""
    trainer, rows = make(fields)
    first = roll_out(trainer, rows)
    noise = 0.15 * torch.randn(first["old_per_token_logps"].shape, generator=torch.Generator().manual_seed(7))
    sampled = first["old_per_token_logps"] + noise
    lengths = first["completion_mask"].sum(1).tolist()
    ids, logps = (
        [row[:length].tolist() for row, length in zip(values, lengths, strict=True)]
        for values in (first["completion_ids"], sampled)
    )
    trainer._generate_single_turn = lambda *args, **kwargs: (ids, logps)
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = True
    ours, trls = both_ways(trainer, lambda: roll_out(trainer, rows))
    for key in ("completion_ids", "advantages", "importance_sampling_ratio", "sampling_per_token_logps"):
        torch.testing.assert_close(ours[key], trls[key], rtol=1e-4, atol=1e-5)
    assert (ours["importance_sampling_ratio"] - 1).abs().max() > 0.05
    move(trainer.model)
    losses_both_ways(trainer, ours)


def test_every_loss_of_trl_is_compared_and_documented():
    source = inspect.getsource(GRPOTrainer._compute_loss)
    lists = re.findall(r"self\.loss_type (?:in \[([^\]]*)\]|== (\"\w+\"))", source)
    names = {name for pair in lists for name in re.findall(r"\"(\w+)\"", "".join(pair))}
    assert len(names) >= 8
    assert names == {fields.get("loss_type", "dapo") for fields in (*LOSSES, *MOVED)}
    page = (Path(__file__).parents[3] / "docs" / "grpo.md").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if f"| `{name}` |" not in page] == []
    settings = {key for fields in (*MOVED, *MOVED_SLOWLY, *ENGINE) for key in fields} - {
        "loss_type",
        "epsilon",
        "epsilon_high",
    }
    assert [name for name in sorted(settings) if f"`{name}" not in page] == []
