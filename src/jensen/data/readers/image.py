"""One image file: decoded, turned upright, and converted to the colours and the size of the options."""

from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.kinds import ENOUGH, described
from jensen.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")


def decode_image(path: Path, options: ReadOptions) -> np.ndarray:
    """The pixels of an image file; see `decode`."""
    with path.open("rb") as stream:
        return decode(stream, str(path), options)


def decode(stream: IO[bytes], name: str, options: ReadOptions) -> np.ndarray:
    """The pixels (C, H, W) of an image, uint8, or uint16 for 16-bit grey.

    Raises InputError, which begins with `name`, for an image that cannot be decoded, is larger than Pillow's limit, has
    several frames, or has pixels that the colour option does not cover.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(stream, formats=FORMATS) as image:
            _refuse_before_decoding(image, stream, name)
            upright = ImageOps.exif_transpose(image)
            coloured = _as_is(upright, name) if options.colour == "as-is" else _converted(upright, options.colour, name)
            pixels = np.asarray(_covering(coloured, options.size) if options.size else coloured)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        stream.seek(0)
        what = described(stream.read(ENOUGH))
        raise InputError(f"{name}: cannot be decoded as PNG, JPEG or WebP (it {what})") from error
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error)) from error
    except Exception as error:  # Pillow's decoders raise many kinds of error, all caused by the file
        reason = " ".join(str(error).replace(name, "it").split()) or type(error).__name__
        raise InputError(f"{name}: cannot be decoded ({reason})") from error
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _refuse_before_decoding(image: "Image.Image", stream: IO[bytes], name: str) -> None:
    from PIL import Image

    pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > limit:
        raise _too_large(name, f"{image.width}x{image.height} pixels, limit {limit} in all")
    frames = getattr(image, "n_frames", 1)
    if image.format in ("PNG", "WEBP") and frames > 1:
        raise InputError(f"{name}: has {frames} frames; expected a single image")
    if image.format == "PNG" and not image.mode.startswith("I") and _png_bit_depth(stream) == 16:
        raise InputError(
            f"{name}: is 16-bit {image.mode}, which Pillow cuts to 8 bits; convert it to 8 bits, or to a .npy file"
        )


def _too_large(name: str, detail: str) -> InputError:
    return InputError(f"{name}: is too large to decode safely ({detail}); shrink it")


def _png_bit_depth(stream: IO[bytes]) -> int:
    position = stream.tell()
    stream.seek(24)  # signature 8, chunk length 4, "IHDR" 4, width 4, height 4, then the depth
    depth = stream.read(1)[0]
    stream.seek(position)
    return depth


def _as_is(image: "Image.Image", name: str) -> "Image.Image":
    """Grey, RGB or RGBA as in the file; bilevel images become grey, palettes become their colours."""
    transparent = image.has_transparency_data
    if image.mode in ("1", "L") and not transparent:
        return image.convert("L")
    if image.mode == "I;16" and not transparent:
        return image
    if image.mode in ("P", "RGB", "RGBA"):
        return image.convert("RGBA" if transparent else "RGB")
    what = f"{image.mode} with transparency" if transparent and image.mode not in ("LA", "PA") else image.mode
    raise InputError(f"{name}: has {what} pixels; give --colour grey, rgb or rgba")


def _converted(image: "Image.Image", colour: str, name: str) -> "Image.Image":
    """The image in other colours; grey and RGB turn transparency into white; 16-bit grey is kept."""
    from PIL import Image

    if image.mode.startswith("I"):
        if colour == "grey" and image.mode == "I;16" and not image.has_transparency_data:
            return image
        raise InputError(f"{name}: has 16-bit grey pixels, which cannot be read as {colour}; convert it to 8 bits")
    if colour == "rgba":
        return image.convert("RGBA")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
    return image.convert("L" if colour == "grey" else "RGB")


def _covering(image: "Image.Image", size: tuple[int, int]) -> "Image.Image":
    """The largest centred part with the aspect ratio of `size`, resized with an antialiasing bicubic filter."""
    from PIL import Image

    height, width = size
    if (image.height, image.width) == (height, width):
        return image
    scale = max(height / image.height, width / image.width)
    left, top = (image.width - width / scale) / 2, (image.height - height / scale) / 2
    box = (max(left, 0.0), max(top, 0.0), min(image.width - left, image.width), min(image.height - top, image.height))
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)
