"""Images in every form that a person has."""

import functools
import http.server
import io
import threading

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from wsol.data.inputs import each_image, read_pixels

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 8, 3), np.uint8)
UNIT = RGB.astype(np.float32) / 255
GRAY = RGB[..., 0]
ALPHA = np.dstack([RGB, GRAY])
CHANNELS_FIRST = torch.from_numpy(np.ascontiguousarray(RGB.transpose(2, 0, 1)))


@pytest.fixture
def photo(tmp_path):
    """Stored sideways; viewers show it as `RGB`."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(RGB)))
    turned.save(tmp_path / "a.png", exif=exif)
    return tmp_path / "a.png"


@pytest.fixture
def server(tmp_path):
    """Address of a server of `tmp_path`."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.func.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def pixels_of(images):
    return [read_pixels(image) for image in each_image(images)]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (RGB, RGB),
        (ALPHA, RGB),
        (GRAY, np.dstack([GRAY] * 3)),
        (GRAY[..., None], np.dstack([GRAY] * 3)),
        (np.dstack([GRAY, GRAY]), np.dstack([GRAY] * 3)),
        (RGB.astype(np.uint16) * 256 + 77, RGB),
        (UNIT, UNIT),
        (UNIT.astype(np.float64), UNIT),
        (UNIT[..., 0].astype(np.float16), np.dstack([UNIT[..., 0].astype(np.float16)] * 3)),
        (CHANNELS_FIRST, RGB),
        (CHANNELS_FIRST.double() / 255, UNIT),
        (CHANNELS_FIRST[0], np.dstack([GRAY] * 3)),
        (CHANNELS_FIRST[:1].bfloat16() * 0, UNIT * 0),
        (Image.fromarray(ALPHA), RGB),
    ],
)
def test_arrays_and_tensors_of_every_kind(image, expected):
    (pixels,) = pixels_of(image)
    assert pixels.dtype == (np.uint8 if expected.dtype == np.uint8 else np.float32)
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_a_photo_is_the_same_as_file_image_bytes_or_address(photo, server):
    content = photo.read_bytes()
    written = io.BytesIO()
    written.write(content)  # its position is at the end
    with open(photo, "rb") as opened, Image.open(photo) as image:
        for form in (photo, str(photo), image, content, opened, written, f"{server}/a.png"):
            (pixels,) = pixels_of(form)
            np.testing.assert_array_equal(pixels, RGB)
    with pytest.raises(ValueError, match="cannot read image of 4 bytes: it is not a JPEG"):
        pixels_of(b"junk")
    with open(__file__) as text, pytest.raises(ValueError, match="with mode 'rb'"):
        pixels_of(text)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("{}/none.png", "cannot download http://127.*/none.png: HTTP Error 404"),
        ("{}/notes.txt", "http.*/notes.txt: cannot read image of 5 bytes: it is not a JPEG"),
        ("http://127.0.0.1:9/a.png", "cannot download http://127.0.0.1:9/a.png: .*refused"),
        ("https://", "cannot download https://: "),
    ],
)
def test_an_address_that_gives_no_image_costs_one_line(server, tmp_path, address, message):
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(ValueError, match=message) as caught:
        pixels_of(address.format(server))
    assert "\n" not in str(caught.value)


def test_patterns_folders_and_names_with_brackets(tmp_path):
    for name in ("b.png", "a.png", "in/c.png", "x[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(RGB).save(tmp_path / name)

    def names(*images):
        return [str(image).removeprefix(f"{tmp_path}/") for image in each_image(images)]

    assert names(f"{tmp_path}/?.png") == ["a.png", "b.png"]
    assert names(tmp_path / "**" / "c.*") == names(f"{tmp_path}/i*") == ["in/c.png"]
    assert names(f"{tmp_path}/x[1].png") == ["x[1].png"]
    with pytest.raises(ValueError, match=r"no file matches .*/\*.tif"):
        names(f"{tmp_path}/*.tif")


def test_frames_of_a_video(tmp_path):
    frames = np.repeat(np.array([40, 120, 200], np.uint8), 48 * 64 * 3).reshape(3, 48, 64, 3)
    frames[..., 2] //= 4  # blue
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), codec, 5, (64, 48))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    for form in (frames, (frame for frame in frames), tmp_path / "a.avi"):
        for pixels, frame in zip(pixels_of(form), frames, strict=True):
            np.testing.assert_allclose(pixels, frame, atol=6)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"cannot read a frame of the video .*b.mp4"):
        pixels_of(tmp_path / "b.mp4")
