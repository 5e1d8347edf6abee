"""Packages that come with the extras of pyproject.toml, and what is said where one is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from scenerl.errors import UserError

EXTRA_OF_PACKAGE = {
    **dict.fromkeys(["accelerate", "datasets", "huggingface_hub", "packaging", "peft", "safetensors"], "train"),
    **dict.fromkeys(["httpx", "tokenizers", "torch", "transformers", "trl"], "train"),
    **dict.fromkeys(["fastapi", "gradio", "starlette", "uvicorn"], "app"),
    **dict.fromkeys(["reportlab", "svglib"], "pdf"),
    "bitsandbytes": "qlora",
    "deepspeed": "deepspeed",
    "fiftyone": "fiftyone",
    "h5py": "h5",
    "httpx2": "server",
    "networkx": "graphs",
    "openai": "server",
    "pyarrow": "hub",
    "supervision": "graphs",
}
"""Package, as it is imported, to the extra that installs it, itself or through another one."""


def require(module: str, purpose: str) -> Any:
    """Import a module of an extra, for functions that are also called from Python.

    Args:
        purpose: what needs it, for the message.

    Raises:
        UserError: its package is not installed; says which extra installs it.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if package_of(error) != package:
            raise
        raise UserError(
            f"{purpose} needs the package {package}: pip install 'scenerl[{EXTRA_OF_PACKAGE[package]}]'"
        ) from error


def package_of(error: ModuleNotFoundError) -> str:
    """The package that is missing."""
    return (error.name or "").partition(".")[0]
