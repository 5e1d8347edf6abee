"""A prompt with its images as messages of OpenAI's API."""

from __future__ import annotations

import base64
import io

from PIL import Image

from scenerl.models.loading import Checkpoint


def to_messages(prompt: list[dict], checkpoint: Checkpoint | None = None) -> list[dict]:
    """The messages of a prompt, each image inside as a data URL.

    Images are sent as PNG, which loses nothing. Where the checkpoint's processor makes one resized input of an image,
    the image is resized to it here with the processor's own filter. A server that has the same pixel bounds leaves it
    as it is, so the model sees the pixels that it would see in this process; servers resize with other code, whose
    pixels differ a little. Processors that cut images into tiles get the original.
    """
    return [{**message, "content": [_part(part, checkpoint) for part in message["content"]]} for message in prompt]


def _part(part: dict, checkpoint: Checkpoint | None) -> dict:
    if part["type"] != "image":
        return part
    file = io.BytesIO()
    _as_seen(part["image"], checkpoint).save(file, "PNG", compress_level=1)
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _as_seen(image: Image.Image, checkpoint: Checkpoint | None) -> Image.Image:
    images = getattr(checkpoint and checkpoint.processor, "image_processor", None)
    if not hasattr(images, "merge_size"):  # patches of one resized input are merged, not tiles cut from it
        return image
    size = checkpoint.family.input_wh(checkpoint.processor, image.size)
    return image if size == image.size else image.resize(size, images.resample)
