"""Muon on the matrices and AdamW on the rest, as one optimiser that the trainers can drive and save."""

from __future__ import annotations

import math

import torch
from torch import nn

_NOT_HIDDEN = ("embed", "lm_head", "norm")
_COEFFICIENTS = 3.4445, -4.7750, 2.0315
_NEWTON_SCHULZ_STEPS = 5


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values end between 0.7 and 1.2.

    Source: the quintic Newton-Schulz iteration of Keller Jordan's Muon (kellerjordan.github.io/posts/muon). It runs in
    the matrix's own type: ``torch.optim.Muon`` runs it in bfloat16, which CPUs without such units emulate 15 times
    slower than float32.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """``torch.optim.Muon`` with its defaults (momentum 0.95, Nesterov), computed in the parameters' own type."""

    def __init__(self, params, lr: float, weight_decay: float = 0.1, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                momentum = state["momentum_buffer"]
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalized(parameter.grad.lerp(momentum, group["momentum"]))
                rows, columns = parameter.shape
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))
        return loss


class MuonWithAdamW(torch.optim.Optimizer):
    """:class:`Muon` on two-dimensional hidden weights, AdamW on embeddings, norms, biases and the rest.

    Small models trained from scratch learn boxes many times faster with it than with AdamW alone (docs/log.md).

    Args:
        model: parameters that require gradients are split by name and shape.
        lr: AdamW's learning rate. muon_lr: Muon's. A scheduler scales both.
        weight_decay: of both.
    """

    def __init__(self, model: nn.Module, lr: float, muon_lr: float, weight_decay: float = 0.01):
        hidden, rest = [], []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                matrix = parameter.ndim == 2 and not any(word in name for word in _NOT_HIDDEN)
                (hidden if matrix else rest).append(parameter)
        self._parts: list[torch.optim.Optimizer] = []
        if rest:  # first, because trainers log the first group's learning rate
            self._parts.append(torch.optim.AdamW(rest, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.95)))
        if hidden:
            self._parts.append(Muon(hidden, lr=muon_lr, weight_decay=weight_decay))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """Let the parts read the very groups that schedulers write to."""
        start = 0
        for part in self._parts:
            count = len(part.param_groups)
            part.param_groups = self.param_groups[start : start + count]
            start += count

    def step(self, closure=None):
        loss = closure() if closure is not None else None
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self):
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict):
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]


class MuonFactory:
    """What the trainers' ``optimizer_cls_and_kwargs`` calls with the model to get a :class:`MuonWithAdamW`."""

    def __call__(self, model: nn.Module, **kwargs) -> MuonWithAdamW:
        return MuonWithAdamW(model, **kwargs)
