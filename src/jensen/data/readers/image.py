"""One image: decoded, turned upright, and converted to the colours and the size of the options."""

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.kinds import ENOUGH, described
from jensen.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
IN_WORDS = "PNG, JPEG, WebP, TIFF, BMP or GIF"
_BITS, _SAMPLE_FORMAT, _SIGNED = 258, 339, 2  # tags of TIFF, and the value of the second for signed integers
_BY_TIFFFILE = "convert it: import numpy, tifffile; numpy.savez('data.npz', x=tifffile.imread('FILE'))"


def decode_image(path: Path, options: ReadOptions) -> np.ndarray:
    """The pixels of an image file; see `decode`."""
    with path.open("rb") as stream:
        return decode(stream, str(path), options)


def decode(
    stream: IO[bytes], name: str, options: ReadOptions, page: int | None = None, most: int | None = None
) -> np.ndarray:
    """The pixels (C, H, W) of an image.

    Pixels are uint16 for 16-bit grey, float32 for a band of floats, and uint8 for all other images. `page` is a page of
    a TIFF file; None requires that the file has one page. An animated GIF is read as its first frame. Raises
    InputError, which begins with `name`, for an image that cannot be decoded, has more than `most` pixels (default:
    Pillow's limit), has several frames, or has pixels that the colour option does not cover.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(stream, formats=FORMATS) as image:
            if page is not None:
                image.seek(page)
            _refuse_before_decoding(image, stream, name, page, most)
            upright = ImageOps.exif_transpose(image)
            coloured = _as_is(upright, name) if options.colour == "as-is" else _converted(upright, options.colour, name)
            pixels = np.asarray(_covering(coloured, options.size) if options.size else coloured)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        stream.seek(0)
        start = stream.read(ENOUGH)
        if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise InputError(f"{name}: is a TIFF image of a kind that Pillow does not read; {_BY_TIFFFILE}") from error
        raise InputError(f"{name}: cannot be decoded as {IN_WORDS} (it {described(start)})") from error
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error)) from error
    except Exception as error:  # Pillow's decoders raise many kinds of error, all caused by the file
        reason = " ".join(str(error).replace(name, "it").split()) or type(error).__name__
        raise InputError(f"{name}: cannot be decoded ({reason})") from error
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def frames(stream: IO[bytes]) -> tuple[int, bool]:
    """The number of pages of a file (1 unless it is a TIFF), and whether the file is an animated GIF.

    A file that cannot be read counts as one page; `decode` reports its problem.
    """
    from PIL import Image

    try:
        with Image.open(stream, formats=("TIFF", "GIF")) as image:
            if image.format == "GIF":
                return 1, bool(getattr(image, "is_animated", False))
            return int(getattr(image, "n_frames", 1)), False
    except Exception:  # Pillow's decoders raise many kinds of error, all caused by the file
        return 1, False


def widened(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Images (..., C, H, W) of 1, 3 or 4 channels with more channels: grey is repeated, alpha is opaque."""
    given = pixels.shape[-3]
    if given == channels:
        return pixels
    colours = np.repeat(pixels, 3, axis=-3) if given == 1 else pixels
    if channels == 3:
        return colours
    return np.concatenate([colours, np.full_like(colours[..., :1, :, :], 255)], axis=-3)


def _refuse_before_decoding(
    image: "Image.Image", stream: IO[bytes], name: str, page: int | None, most: int | None
) -> None:
    from PIL import Image

    pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS if most is None else most
    if limit is not None and pixels > limit:
        raise _too_large(name, f"{image.width}x{image.height} pixels, limit {limit} in all")
    if image.format == "TIFF":
        _refuse_in_tiff(image, name, page)
        return
    count = getattr(image, "n_frames", 1) if image.format in ("PNG", "WEBP") else 1
    if count > 1:
        raise InputError(f"{name}: has {count} frames; expected a single image")
    if image.format == "PNG" and not image.mode.startswith("I") and _png_bit_depth(stream) == 16:
        raise InputError(
            f"{name}: is 16-bit {image.mode}, which Pillow cuts to 8 bits; convert it to 8 bits, or to a .npy file"
        )


def _refuse_in_tiff(image: "Image.Image", name: str, page: int | None) -> None:
    """Raises InputError for pages, and for samples that Pillow would round, wrap or cut."""
    if page is None and (count := getattr(image, "n_frames", 1)) > 1:
        raise InputError(f"{name}: has {count} pages; expected a single image")
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, sample = max(tags.get(_BITS, (1,))), max(tags.get(_SAMPLE_FORMAT, (1,)))
    kind = {"F": "floats", "I": "integers"}.get(image.mode[0], image.mode)
    if bits > {"F": 32, "I": 16}.get(image.mode[0], 8):
        raise InputError(f"{name}: has {bits}-bit {kind}, which Pillow cuts to fewer bits; {_BY_TIFFFILE}")
    if sample == _SIGNED and bits <= 8:
        raise InputError(f"{name}: has signed integers of 8 bits, whose sign Pillow drops; {_BY_TIFFFILE}")


def _too_large(name: str, detail: str) -> InputError:
    return InputError(f"{name}: is too large to decode safely ({detail}); shrink it")


def _png_bit_depth(stream: IO[bytes]) -> int:
    position = stream.tell()
    stream.seek(24)  # signature 8, chunk length 4, "IHDR" 4, width 4, height 4, then the depth
    depth = stream.read(1)[0]
    stream.seek(position)
    return depth


def _as_is(image: "Image.Image", name: str) -> "Image.Image":
    """The smallest of grey, RGB and RGBA that holds the pixels of the file; 16-bit grey and floats are kept."""
    transparent = image.has_transparency_data
    if image.mode in ("1", "L") and not transparent:
        return image.convert("L")
    if image.mode[0] in "IF" and not transparent:
        return _deep(image)
    if image.mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        return image.convert("RGBA" if transparent else "RGB")
    raise InputError(f"{name}: has {image.mode} pixels; give --colour grey, rgb or rgba")


def _deep(image: "Image.Image") -> "Image.Image":
    """16-bit grey in the machine's byte order; floats, and signed integers of 16 bits as floats, which is exact."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    return image.convert("F")


def _converted(image: "Image.Image", colour: str, name: str) -> "Image.Image":
    """The image in other colours; grey and RGB turn transparency into white; 16-bit grey and floats are kept."""
    from PIL import Image

    if image.mode[0] in "IF":
        if colour == "grey" and not image.has_transparency_data:
            return _deep(image)
        what = "16-bit grey" if image.mode[0] == "I" else "float"
        raise InputError(f"{name}: has {what} pixels, which cannot be read as {colour}; convert it to 8 bits")
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
