"""The checkpoints that the page offers, named by the user; the browser chooses among these names only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from scenerl.answers import OutputFormat
from scenerl.answers.formats import FORMATS
from scenerl.errors import UserError
from scenerl.inference.engine import Sampling
from scenerl.inference.hf import HFEngine
from scenerl.models import adapters
from scenerl.models.loading import family_of, load
from scenerl.models.output_formats import saved_output_format

CONFIGS = ("config.json", adapters.CONFIG)
"""A folder with one of them is a checkpoint."""
KEPT = 2
"""Models in memory: two are compared."""


def named_models(words: Sequence[str]) -> dict[str, str]:
    """Names to checkpoint folders or hub names.

    Args:
        words: each ``CHECKPOINT`` or ``NAME=CHECKPOINT``. A folder that is none itself stands for those in it, such as
            the stages of a demo run, the newest first.

    Raises:
        UserError: no checkpoint there, or two with one name.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, place = word.partition("=")
        if not equals or Path(word).exists():
            name, place = "", word
        configs = [path for name in CONFIGS for path in Path(place).glob(f"*/{name}")]
        configs.sort(key=lambda path: (-path.stat().st_mtime, path))
        inside = [path.parent for path in configs]
        several = Path(place).is_dir() and not any((Path(place) / name).is_file() for name in CONFIGS) and inside
        for path in inside if several else [place]:
            own = Path(path).name or str(path)
            key = (f"{name}/{own}" if name else own) if several else name or own
            if key in found and found[key] != str(path):
                raise UserError(f"models: two are named {key!r}; name them: NAME={path}")
            found[key] = str(path)
    for place in found.values():
        family_of(place)
    return found


class Checkpoints:
    """Loads checkpoints when they are asked, and keeps the last few. One thread at a time."""

    def __init__(
        self,
        models: dict[str, str],
        dtype: str = "auto",
        device: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ):
        self.output_formats: dict[str, OutputFormat | None] = {
            name: saved_output_format(place) for name, place in models.items()
        }
        self._models = models
        self._settings = (dtype, device, min_pixels, max_pixels)
        self._engines: OrderedDict[str, HFEngine] = OrderedDict()

    def engine(self, name: str) -> HFEngine:
        """What answers with a checkpoint.

        Raises:
            UserError: it cannot be loaded; says why.
        """
        if name not in self._engines:
            while len(self._engines) >= KEPT:
                self._engines.popitem(last=False)
            self._engines[name] = HFEngine(load(self._models[name], *self._settings), Sampling())
        self._engines.move_to_end(name)
        return self._engines[name]

    def describe(self) -> list[dict]:
        """Of each its name and the task that it was trained for."""
        return [
            {"name": name, "task": "sgdet" if output_format is None or FORMATS[output_format.format].graph else "det"}
            for name, output_format in self.output_formats.items()
        ]
