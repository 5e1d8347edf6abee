"""Files as people and attackers send them."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image


def encoded(image: Image.Image, kind: str, **more) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def png(width: int, height: int, color="red", mode="RGB") -> bytes:
    return encoded(Image.new(mode, (width, height), color), "PNG")


def two_colors(width: int = 60, height: int = 40) -> Image.Image:
    """Red, with the left third blue."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (0, 0, width // 3, height))
    return image


def header_bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """A PNG of a few hundred bytes that claims many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def animated() -> bytes:
    box_formats = [Image.new("RGB", (30, 20), color) for color in ("red", "blue", "green")]
    return encoded(box_formats[0], "GIF", save_all=True, append_images=box_formats[1:])
