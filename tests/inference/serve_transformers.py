"""``transformers serve`` with processors that need no torchvision, which their video halves ask for.

Run as ``python serve_transformers.py FOLDER PORT``.
"""

from __future__ import annotations

import sys


def main(folder: str, port: str) -> None:
    from transformers import AutoConfig, AutoProcessor
    from transformers.cli import transformers

    from scenerl.models.loading import family_of

    family = family_of(folder)

    class Processor(type(family.load_processor(folder))):
        @classmethod
        def from_pretrained(cls, name, **kwargs):
            return family.load_processor(name)

    Processor.__name__ = Processor.__mro__[1].__name__  # the name that the folder's files give
    AutoProcessor.register(type(AutoConfig.from_pretrained(folder)), Processor, exist_ok=True)
    sys.argv = ["transformers", "serve", folder, "--host", "127.0.0.1", "--port", port, "--device", "cpu"]
    transformers.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
