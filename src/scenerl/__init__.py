"""SceneRL: images to structured scenes with vision-language models, and reinforcement learning that improves them."""

__version__ = "0.2.0"
