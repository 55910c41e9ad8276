"""Image files of every kind: read as Pillow reads them, or refused by name."""

import os
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.damage import damaged
from wsol.data.image_files import MOST_PIXELS, image_size, read_gray, read_image
from wsol.data.inputs import read_pixels

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 8, 3), np.uint8)
PICTURE = Image.fromarray(RGB)


def png(width, height, rows=0):
    """A PNG whose header promises `height` rows of one bit a pixel, and that holds `rows`."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join([packer.compress(row) for _ in range(rows)]) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        (suffix, mode)
        for suffix in ("png", "bmp", "tif", "webp", "gif", "jpg", "ppm")
        for mode in ("RGB", "L", "1", "P")
        if (suffix, mode) not in {("jpg", "P"), ("ppm", "P")}  # there are none
    ],
)
def test_pixels_are_pillows(tmp_path, suffix, mode):
    file = tmp_path / f"a.{suffix}"
    lossless = {"lossless": True} if suffix == "webp" else {}
    PICTURE.convert(mode).save(file, **lossless)
    with Image.open(file) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image(file), expected)
    if suffix not in ("gif", "jpg"):
        np.testing.assert_array_equal(expected, np.asarray(PICTURE.convert(mode).convert("RGB")))
    assert image_size(file) == (8, 6)


def test_transparency_is_dropped_not_blended(tmp_path):
    alpha = np.where(RGB[..., :1] > 128, 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)
    palette = PICTURE.convert("P")
    for name, transparency in (("one.png", 3), ("many.png", bytes(range(256)))):
        palette.save(tmp_path / name, transparency=transparency)
        np.testing.assert_array_equal(read_image(tmp_path / name), palette.convert("RGB"))
    Image.fromarray(np.dstack([RGB[..., 0], alpha])).save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png")[..., 2], RGB[..., 0])


def test_sixteen_bits_keep_their_upper_eight(tmp_path):
    deep = RNG.integers(0, 65536, (6, 8, 4)).astype(np.uint16)
    for name, pixels in {"gray": deep[..., 0], "rgb": deep[..., :3], "rgba": deep}.items():
        for suffix in ("png", "tif"):
            file = tmp_path / f"{name}.{suffix}"
            cv2.imwrite(str(file), pixels)  # BGR
            shown = pixels if pixels.ndim == 2 else pixels[..., 2::-1]
            if (name, suffix) == ("rgba", "tif"):
                continue  # Pillow undoes OpenCV's premultiplied alpha
            expected = np.broadcast_to((shown >> 8).reshape(6, 8, -1), (6, 8, 3))
            np.testing.assert_array_equal(read_image(file), expected)
    np.testing.assert_array_equal(read_gray(tmp_path / "gray.png"), deep[..., 0] >> 8)


@pytest.mark.parametrize("suffix", ["tif", "pgm"])
def test_thirty_two_bits_are_refused_not_cut(tmp_path, suffix):
    file = tmp_path / f"deep.{suffix}"
    pixels = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    if suffix == "pgm":
        cv2.imwrite(str(file), (pixels * 65535).astype(np.uint16))  # Pillow opens it as 32 bits
    else:
        Image.fromarray(pixels).save(file)
    with pytest.raises(ValueError, match=rf"deep.{suffix}: it has 32 bits"):
        read_image(file)


def test_cmyk_is_pillows_also_where_adobe_inverts_it(tmp_path):
    cmyk = PICTURE.resize((64, 48)).convert("CMYK")
    cmyk.save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), image.convert("RGB"))
    original = np.asarray(cmyk.convert("RGB")).astype(int)
    assert np.abs(read_image(tmp_path / "a.jpg") - original).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_camera_orientation(tmp_path, orientation):
    stored = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.swapaxes(0, 1),
        6: np.rot90(RGB, 1),
        7: RGB[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(RGB, -1),
    }[orientation]  # what a camera held that way writes
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", upright=True), RGB)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), stored)
    assert image_size(tmp_path / "a.png") == stored.shape[1::-1]


ORIENTATION, BYTE, TEXT, SHORT, LONG, SIGNED = 0x0112, 1, 2, 3, 4, 9  # EXIF's numbers


def exif(*tags, order="<"):
    """EXIF data with tags (number, type, count, four bytes of value)."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}LH", 8, len(tags))
    fields = b"".join(struct.pack(f"{order}HHL", *tag[:3]) + tag[3] for tag in tags)
    return b"Exif\0\0" + head + fields + bytes(4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("order", "<>")
def test_an_orientation_of_any_type_is_opencvs(tmp_path, suffix, order):
    """The file, its size, and the image that Pillow opened agree with cv2.imread."""
    file = tmp_path / f"a.{suffix}"
    short, long = struct.pack(f"{order}HH", 6, 0), struct.pack(f"{order}L", 6)
    fields = [(SHORT, 1, short), (SHORT, 2, short), (LONG, 1, long), (SIGNED, 1, long)]
    fields += [(BYTE, 1, b"\6\0\0\0"), (BYTE, 1, b"\6\1\0\0"), (TEXT, 2, b"6\0\0\0")]
    fields += [(SHORT, 0, short), (99, 1, short), (SHORT, 1, b"\x09\0\x09\0")]
    turned = 0
    for field in fields:
        lossless = {"lossless": True} if suffix == "webp" else {}
        PICTURE.save(file, exif=exif((ORIENTATION, *field), order=order), **lossless)
        expected = cv2.imread(str(file))[..., ::-1]
        np.testing.assert_array_equal(read_image(file, upright=True), expected, err_msg=field)
        assert image_size(file, upright=True) == expected.shape[1::-1]
        with Image.open(file) as image:
            np.testing.assert_array_equal(read_pixels(image), expected, err_msg=field)
        turned += expected.shape[:2] == (8, 6)
    assert turned == {"<": 7, ">": 4}[order]  # not vacuous


@pytest.mark.parametrize("upright_first", [True, False])
def test_odd_tags_beside_an_orientation_do_no_harm(tmp_path, upright_first):
    file, turn = tmp_path / "a.jpg", (ORIENTATION, SHORT, 1, b"\6\0\0\0")
    odd = [(256, TEXT, 4, b"abc\0"), (258, SIGNED, 1, struct.pack("<l", -5))]
    odd += [(259, 11, 1, struct.pack("<f", 1.5)), (262, LONG, 1, struct.pack("<L", 70000))]
    odd += [
        (271, TEXT, 100, b"\xff\xff\xff\0"),
        (282, 5, 1, b"\xff\xff\xff\0"),
        (0, 0, 0, bytes(4)),
    ]
    for tag in odd:
        PICTURE.save(file, exif=exif(*((turn, tag) if upright_first else (tag, turn))))
        stored = read_image(file)
        with Image.open(file) as image:
            for pixels in (read_image(file, upright=True), read_pixels(image)):
                np.testing.assert_array_equal(pixels, np.rot90(stored, -1), err_msg=str(tag))
        assert image_size(file, upright=True) == (6, 8)


@pytest.mark.parametrize("data", [b"", b"junk", exif()[:-4], exif((ORIENTATION, 3, 1, b"\6"))[:-9]])
def test_broken_exif_data_count_as_none(tmp_path, data):
    PICTURE.save(tmp_path / "a.jpg", exif=b"Exif\0\0" + data.removeprefix(b"Exif\0\0"))
    assert read_image(tmp_path / "a.jpg", upright=True).shape == RGB.shape


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "L", "LA", "RGBA", "P", "1", "CMYK", "YCbCr"])
def test_an_image_that_pillow_opened_is_its_file(tmp_path, mode):
    file = tmp_path / "a.tif"
    ramp = np.linspace(0, 65535, 48).reshape(6, 8)
    deep = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    image = Image.fromarray(ramp.astype(deep[mode])) if mode in deep else PICTURE.convert(mode)
    assert image.mode == mode
    image.save(file)
    if mode in ("I", "F"):
        for source, name in ((file, "a.tif"), (image, "PIL.Image"), (Image.open(file), "a.tif")):
            with pytest.raises(ValueError, match=rf"cannot read image .*{name}.*: it has 32 bits"):
                read_pixels(source)
        return
    np.testing.assert_array_equal(read_pixels(image), read_pixels(file))
    with Image.open(file) as opened:
        np.testing.assert_array_equal(read_pixels(opened), read_pixels(file))
        opened.seek(0)  # it stays open


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_picture_is_read(tmp_path, suffix):
    colours = [Image.new("RGB", (9, 7), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    colours[0].save(
        tmp_path / f"a.{suffix}", save_all=True, append_images=colours[1:], duration=50, **options
    )
    assert read_image(tmp_path / f"a.{suffix}").reshape(-1, 3).tolist() == [[255, 0, 0]] * 63


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_one_pixel_is_an_image(tmp_path, size):
    Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (*size[::-1], 3)


def test_what_is_no_image_is_refused_by_name(tmp_path):
    whole = tmp_path / "whole.jpg"
    PICTURE.resize((200, 200)).save(whole)
    contents = {
        "text.jpg": b"this is a text",
        "zero.jpg": b"",
        "half.jpg": whole.read_bytes()[:700],
        "header.jpg": whole.read_bytes()[:30],
        "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "svg.jpg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"cannot read image .*{name}: "):
            read_image(tmp_path / name)
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(ValueError, match=r"cannot read image .*folder.jpg: Is a directory"):
        read_image(tmp_path / "folder.jpg")
    with pytest.raises(ValueError, match=r"cannot read image .*none.jpg: it does not exist"):
        read_image(tmp_path / "none.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "none.jpg")
    with pytest.raises(ValueError, match=r"link.jpg: No such file"):
        read_image(tmp_path / "link.jpg")


def test_a_picture_in_postscript_runs_no_other_program(tmp_path, monkeypatch):
    """Pillow's reader of EPS starts Ghostscript, whatever the file is called."""
    fake = tmp_path / "bin" / "gs"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    file = tmp_path / "a.jpg"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match=r"a.jpg: it is not a JPEG"):
        read_image(file)
    assert not (tmp_path / "ran").exists()
    with Image.open(file) as image:
        assert image.format == "EPS"  # what would have been opened


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (10_000, 9_000), (2**30, 2**30)])
def test_too_many_pixels_are_refused_before_any_is_decoded(tmp_path, width, height):
    """Files without pixels: they would be called broken if any were asked for."""
    assert width * height > MOST_PIXELS
    (tmp_path / "bomb.png").write_bytes(png(width, height))
    for read in (read_image, read_gray, image_size):
        with pytest.raises(ValueError, match=r"bomb.png: .*pixels"):
            read(tmp_path / "bomb.png")
    (tmp_path / "broken.png").write_bytes(png(9_000, 9_000))
    with pytest.raises(ValueError, match=r"broken.png: (?!.*pixels)"):
        read_image(tmp_path / "broken.png")


def test_a_text_that_unpacks_to_gigabytes_is_refused(tmp_path):
    """A bomb in a PNG's comment, not in its pixels."""
    whole = png(8, 8, 8)
    text = b"Comment\0\0" + zlib.compress(bytes(80_000_000), 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + text))
    (tmp_path / "text.png").write_bytes(whole[:33] + chunk + whole[33:])
    with pytest.raises(ValueError, match=r"text.png: .*too large"):
        read_image(tmp_path / "text.png")


@pytest.mark.slow
def test_the_largest_image_takes_a_bounded_amount_of_memory(tmp_path):
    """Measured in a process of its own: the peak above what it had before."""
    (tmp_path / "gray.png").write_bytes(png(9_459, 9_459, 9_459))
    with Image.new("CMYK", (9_459, 9_459)) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(tmp_path / "cmyk.jpg", exif=exif)
    script = (
        "import resource, sys; from wsol.data.image_files import read_image;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024;"
        "before = peak(); read_image(sys.argv[1], upright=True); print(peak() - before)"
    )
    for name in ("gray.png", "cmyk.jpg"):
        ran = subprocess.run(
            [sys.executable, "-c", script, tmp_path / name], capture_output=True, check=True
        )
        assert float(ran.stdout) < 1500, name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "webp", "bmp"])
def test_a_damaged_image_is_named_or_read(tmp_path_factory, suffix):
    folder = tmp_path_factory.mktemp("damaged")
    PICTURE.save(folder / f"whole.{suffix}")
    whole = (folder / f"whole.{suffix}").read_bytes()
    file = folder / f"a.{suffix}"

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damaged(whole), st.booleans())
    def check(content, upright):
        file.write_bytes(content)
        try:
            pixels = read_image(file, upright=upright)
        except ValueError as error:
            assert f"cannot read image {file}: " in str(error)
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3

    check()


def test_masks_are_opencvs_as_the_published_evaluator_reads_them(tmp_path):
    """Gray, soft, one bit, a palette of grays, and 16 bits: the same numbers."""
    gray = RGB[..., 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(gray > 90).save(tmp_path / "bit.png")
    Image.fromarray(gray // 64).convert("P").save(tmp_path / "palette.png")
    cv2.imwrite(str(tmp_path / "deep.png"), gray.astype(np.uint16) * 257)
    Image.fromarray(np.dstack([gray] * 3 + [255 - gray])).save(tmp_path / "alpha.png")
    for name in ("gray", "bit", "palette", "deep", "alpha"):
        file = tmp_path / f"{name}.png"
        expected = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(read_gray(file), expected, err_msg=name)
