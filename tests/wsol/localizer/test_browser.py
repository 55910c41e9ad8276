"""The page that localizes in a browser: its JavaScript, its runtime, and the whole in Chromium."""

import http.server
import shutil
import tarfile
import threading
import time
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from robust_training.models.creating import create_model
from tests.helpers.browser import Page
from tests.helpers.commands import tool
from wsol.benchmarks.synthetic_maps import synthetic_maps
from wsol.boxes.heatmap_boxes import largest_boxes, to_bytes
from wsol.data.transforms import eval_transform, network_input
from wsol.localizer.browser import page as browser_page
from wsol.localizer.browser.page import Runtime, read_runtime, write_page
from wsol.localizer.export import export_program, write_program
from wsol.localizer.exported_program import Program
from wsol.localizer.localizer import Localizer

SIDE = 24
HOSTILE = "</script><img src=x onerror=broken=1>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page without a network: its functions alone."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "a.onnx").write_bytes(b"")
    program = Program(None, SIDE, ["001.Red_Finch", HOSTILE], 0.25)
    with mock.patch.object(browser_page, "load_program", return_value=program):
        write_page(folder / "a.onnx", Runtime(b"throw Error('none')", b""), folder / "a.html")
    page = Page(folder / "profile")
    page.resize(390, 844)
    page.open(folder / "a.html")
    yield page
    page.close()


def test_boxes_equal_those_of_python(page):
    """Also with holes, equal areas, single pixels and the border."""
    rng = np.random.default_rng(0)
    maps = [*synthetic_maps(SIDE).values()]
    maps += [(rng.random((SIDE, SIDE)) < share) * 1.0 for share in (0.02, 0.1, 0.3, 0.5, 0.8)]
    thresholds = [0, 0.1, 0.37, 0.5, 0.9, 0.999, 1]
    for heatmap in maps:
        pixels = to_bytes(heatmap)
        cuts = [int(threshold * pixels.max()) for threshold in thresholds]
        call = f"((b) => {cuts}.map((cut) => largestBox(b, cut)))({pixels.ravel().tolist()})"
        found = [box or [0] * 4 for box in page.script(call)]
        assert found == largest_boxes(heatmap, thresholds).tolist()


@pytest.mark.parametrize(
    "size", [(24, 24), (60, 40), (48, 72), (25, 24), (100, 30), (10, 13), (7, 24), (90, 9), (9, 31)]
)
def test_photos_are_resized_as_in_python(page, size):
    """Smaller, larger, and one side smaller and the other larger."""
    photo = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    expected = network_input(photo, eval_transform(SIDE))[0].numpy().ravel() * 255
    rgba = np.dstack([photo, np.full(size[::-1], 255, np.uint8)]).ravel().tolist()
    given = f"{{data: {rgba}, width: {size[0]}, height: {size[1]}}}"
    found = np.array(page.script(f"[...networkInput({given})]")) * 255
    assert np.abs(found - expected).max() < 1.01  # OpenCV rounds in other places
    assert np.abs(found - expected).mean() < 0.1


def test_the_page_is_safe_and_says_what_failed(page):
    assert page.script("about.class_names") == ["Red Finch", HOSTILE]
    assert page.script("window.broken") is None
    assert page.script("document.getElementById('status').textContent") == (
        "The network cannot be loaded: none"
    )
    assert page.script("document.documentElement.scrollWidth") <= 390
    page.script("fetch('https://example.org/').catch(() => { window.refused = true; })")
    deadline = time.monotonic() + 10
    while not page.script("window.refused") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert page.script("window.refused")
    page.complaints.clear()  # the refusal itself


def test_the_runtime_is_read_from_a_folder_or_an_archive(tmp_path):
    folder = tmp_path / "package"
    (folder / "dist").mkdir(parents=True)
    (folder / "dist" / "ort.wasm.bundle.min.mjs").write_bytes(b"script")
    with pytest.raises(ValueError, match="is not the package onnxruntime-web@.*wasm"):
        read_runtime(folder)
    (folder / "dist" / "ort-wasm-simd-threaded.wasm").write_bytes(b"wasm")
    archive = tmp_path / "onnxruntime-web.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, "package")
    assert read_runtime(folder) == read_runtime(archive) == Runtime(b"script", b"wasm")
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, "other")
    (tmp_path / "text").write_text("text")
    for wrong in (archive, tmp_path / "text", tmp_path / "missing"):
        with pytest.raises(ValueError, match="is not the package onnxruntime-web@"):
            read_runtime(wrong)


def test_without_npm_the_user_learns_what_to_do(tmp_path):
    with (
        mock.patch.object(shutil, "which", return_value=None),
        pytest.raises(ValueError, match=r"npm is missing; .* --onnxruntime_web"),
    ):
        read_runtime()
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'no network' >&2\nexit 1\n")
    npm.chmod(0o755)
    with (
        mock.patch.object(shutil, "which", return_value=str(npm)),
        pytest.raises(ValueError, match="npm failed: no network; a page needs"),
    ):
        read_runtime()
    status, _, error = tool("export.py", "x", "--browser", "--formats", "pt2")
    assert (status, error) == (2, "error: --browser needs the .onnx: add onnx to --formats")
    with pytest.raises(ValueError, match=r"needs an exported .onnx, not localizer.pt2"):
        write_page(tmp_path / "localizer.pt2", Runtime(b"", b""), tmp_path / "a.html")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A network, and a folder with its whole page."""
    try:
        runtime = read_runtime()
    except ValueError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    model = create_model("test_resnet", 4, image_size=32).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    program = folder / "localizer.onnx"
    write_program(export_program(model), Localizer(model, "gradient", 0.4), program)
    write_page(program, runtime, folder / "localizer.html")
    return model, folder


@pytest.mark.slow
@pytest.mark.parametrize("served", [True, False])
def test_a_browser_finds_the_boxes_of_the_localizer(toy, tmp_path, whole, served):
    """Within one pixel of the heatmap. From a server, and opened from the disk."""
    model, folder = whole
    original = Image.open(sorted((toy / "images").rglob("*.jpg"))[3])
    photos = []
    for number, size in enumerate([(48, 48), (120, 90), (20, 60), (16, 16)]):
        photos.append(tmp_path / f"{number}.png")
        original.resize(size).save(photos[-1])
    turned = Image.Exif()
    turned[0x0112] = 6
    original.resize((60, 40)).save(tmp_path / "turned.jpg", exif=turned, quality=100, subsampling=0)
    photos.append(tmp_path / "turned.jpg")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = Page(tmp_path / "profile")
    try:
        address = f"http://127.0.0.1:{server.server_port}/localizer.html"
        page.open(address if served else folder / "localizer.html")
        wait_for(page, "Ready.")
        for photo in photos:
            node = page.call(
                "DOM.querySelector",
                nodeId=page.call("DOM.getDocument")["root"]["nodeId"],
                selector="#file",
            )["nodeId"]
            page.script("say('')")
            page.call("DOM.setFileInputFiles", nodeId=node, files=[str(photo)])
            wait_for(page, "The network took")
            (expected,) = Localizer(model, "gradient", 0.4).predict(photo)
            assert page.script("[state.photo.width, state.photo.height]") == [*expected.size]
            pixel = max(expected.size) / 32
            np.testing.assert_allclose(page.script("state.box"), expected.box, atol=1.01 * pixel)
            shown = page.script("document.getElementById('class').textContent")
            assert shown == f"{expected.class_name}, {100 * expected.score:.0f} %"
            page.script(
                "{ const s = document.getElementById('threshold'); s.value = 0.8;"
                "s.dispatchEvent(new Event('input')); }"
            )
            (smaller,) = Localizer(model, "gradient", 0.8).predict(photo)
            np.testing.assert_allclose(page.script("state.box"), smaller.box, atol=1.01 * pixel)
        assert page.complaints == []
    finally:
        page.close()
        server.shutdown()
        server.server_close()


def wait_for(page, start):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        said = page.script("document.getElementById('status').textContent")
        assert "cannot" not in said, said
        if said.startswith(start):
            return
        time.sleep(0.05)
    raise AssertionError(f"the page never said {start!r} but {said!r}")
