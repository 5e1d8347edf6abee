"""A second device for tests on a machine that has one: tensors on it hold their values in ordinary tensors.

On a CPU a tensor that was left behind goes unnoticed, and on a GPU it ends the run. Here operations are refused that
CUDA refuses. The device is called ``meta``, for which torch needs no driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

OTHER = torch.device("meta")
_MIXES = {
    torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default, torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default, torch.ops.aten._index_put_impl_.default,
}  # fmt: skip
"""Copies, and indices, which may be on the CPU."""


class Placed(torch.Tensor):
    """A tensor on the other device."""

    @staticmethod
    def __new__(cls, value: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            value.size(),
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=OTHER,
            requires_grad=value.requires_grad,
        )

    def __init__(self, value: torch.Tensor):
        self.value = value

    def tolist(self) -> list:
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"Placed({self.value!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


@contextmanager
def other_device() -> Iterator[None]:
    """Within it tensors can be made on the other device, and moved there. It has no autocast, as in float32."""
    with pytest.MonkeyPatch.context() as patch, _Operations(), _Literals():
        patch.setattr(torch, "is_autocast_enabled", lambda device_type=None: False)
        patch.setattr(torch, "get_autocast_dtype", lambda device_type: torch.get_default_dtype())
        patch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
        patch.setattr(torch.amp, "autocast", lambda *args, **kwargs: nullcontext())
        patch.setattr(torch, "Generator", lambda device=None, make=torch.Generator: make())
        yield


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """What torch makes of lists without an operation, and without values on ``meta``: ``torch.tensor``, and indices."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.__getitem__ and isinstance(args[1], list):
            return args[0][torch.tensor(args[1])]
        if func not in (torch.tensor, torch.as_tensor) or isinstance(args[0], torch.Tensor):
            return func(*args, **kwargs)
        device = kwargs.pop("device", None) or "cpu"
        return func(*tree_map_only(Placed, lambda tensor: tensor.value, args), **kwargs).to(device)


def _run(func, args: tuple, kwargs: dict[str, Any]):
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    placed = [tensor for tensor in tensors if isinstance(tensor, Placed)]
    assert all(isinstance(tensor, Placed) for tensor in tensors if tensor.device == OTHER), f"{func}: without values"
    if placed and func is torch.ops.aten._fused_sdp_choice.default:
        return 0  # the form of attention that is made of other operations
    left = [tensor for tensor in tensors if not isinstance(tensor, Placed) and tensor.ndim]
    if placed and left and func not in _MIXES:
        shapes = [tuple(tensor.shape) for tensor in left]
        raise RuntimeError(f"{func}: expected all tensors to be on the same device; on the CPU: {shapes}")
    device = kwargs.get("device")
    if device is not None:
        is_placed = torch.device(device) == OTHER
        kwargs = {**kwargs, "device": torch.device("cpu")}
    else:
        is_placed = isinstance(args[0], Placed) if func in _MIXES else bool(placed)
    inner_args, inner_kwargs = tree_map_only(Placed, lambda tensor: tensor.value, (args, kwargs))
    result = func(*inner_args, **inner_kwargs)
    if not is_placed:
        return result
    result = tree_map_only(torch.Tensor, Placed, result)
    return return_and_correct_aliasing(func, args, kwargs, result) if placed else result
