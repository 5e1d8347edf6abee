"""Muon and AdamW as one optimiser."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from scenerl.tiny.optimizer import Muon, MuonFactory, MuonWithAdamW, orthogonalized


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed_tokens = nn.Embedding(5, 4)
        self.hidden = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.lm_head = nn.Linear(6, 5, bias=False)

    def forward(self, ids):
        return self.lm_head(self.norm(self.hidden(self.embed_tokens(ids))))


def loss_of(model, step):
    ids = torch.tensor([step % 5, (step + 1) % 5, 2])
    return nn.functional.cross_entropy(model(ids), (ids + 1) % 5)


def advance(model, optimizers, steps, schedulers=()):
    for step in steps:
        loss_of(model, step).backward()
        for optimizer in optimizers:
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
        model.zero_grad()


def apart(model):
    """Muon on the hidden matrix and AdamW on the rest, as two optimisers."""
    rest = [parameter for name, parameter in model.named_parameters() if name != "hidden.weight"]
    return [
        Muon([model.hidden.weight], lr=0.02, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=1e-3, weight_decay=0.01, betas=(0.9, 0.95)),
    ]


def together(model):
    return MuonFactory()(model, lr=1e-3, muon_lr=0.02, weight_decay=0.01)


def assert_equal(model, other):
    for (name, a), (_, b) in zip(model.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_equals_both_run_apart_under_a_schedule():
    model, other = Net(), Net()
    optimizer, parts = together(model), apart(other)

    def schedule(part):
        return torch.optim.lr_scheduler.LambdaLR(part, lambda step: 0.5**step)

    advance(model, [optimizer], range(4), [schedule(optimizer)])
    advance(other, parts, range(4), [schedule(part) for part in parts])
    # 0.5 ** 4 = 0.0625 of both rates, in the groups that the parts themselves use
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-3 * 0.0625, 0.02 * 0.0625])
    assert_equal(model, other)


def test_state_goes_round():
    model = Net()
    optimizer = together(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    advance(model, [optimizer], range(3), [scheduler])
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), scheduler.state_dict()))
    advance(model, [optimizer], range(3, 6), [scheduler])

    again = Net()
    resumed = together(again)
    following = torch.optim.lr_scheduler.LambdaLR(resumed, lambda step: 1 / (1 + step))
    for part, state in zip((again, resumed, following), saved, strict=True):
        part.load_state_dict(state)
    advance(again, [resumed], range(3, 6), [following])
    assert_equal(again, model)
    assert [group["lr"] for group in resumed.param_groups] == [group["lr"] for group in optimizer.param_groups]


def test_frozen_parameters_and_models_of_matrices_only():
    model = Net()
    model.embed_tokens.weight.requires_grad_(False)
    assert len([p for group in together(model).param_groups for p in group["params"]]) == 5
    assert len(together(nn.Linear(3, 3, bias=False)).param_groups) == 1


def test_closure_gives_the_loss():
    model = Net()
    optimizer = together(model)

    def closure():
        loss = loss_of(model, 0)
        loss.backward()
        return loss

    assert isinstance(optimizer, MuonWithAdamW)
    assert optimizer.step(closure).item() == pytest.approx(loss_of(Net(), 0).item())


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_muon_is_torchs_but_for_rounding(shape):
    """torch.optim.Muon orthogonalises in bfloat16, whose numbers have 8 bits."""
    torch.manual_seed(1)
    start, gradients = torch.randn(shape), torch.randn(5, *shape)
    weights = []
    for cls in (Muon, torch.optim.Muon):
        weight = nn.Parameter(start.clone())
        optimizer = cls([weight], lr=0.02, weight_decay=0.01)
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        weights.append(weight.detach())
    assert torch.allclose(*weights, atol=5 * 0.02 * 2**-6)
    assert not torch.allclose(weights[0], start, atol=0.02)


def test_singular_values_end_near_one():
    values = torch.linalg.svdvals(orthogonalized(torch.randn(40, 20, generator=torch.Generator().manual_seed(0))))
    assert values.min() > 0.6 and values.max() < 1.3


class ProductTypes(TorchDispatchMode):
    """Collects the number types of matrix products."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm):
            self.seen |= {arg.dtype for arg in args if isinstance(arg, torch.Tensor)}
        return func(*args, **(kwargs or {}))


def test_no_product_runs_in_bfloat16():
    """CPUs without bfloat16 units emulate it, 15 times slower than float32."""
    model = Net()
    optimizer = together(model)
    loss_of(model, 0).backward()
    with ProductTypes() as products:
        optimizer.step()
    assert products.seen == {torch.float32}
