"""Archives, from a server on this machine."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading

import pytest

from wsol.data.download import Archive, prepare_cub


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves files, a part of one on request, and may stop early."""

    stop_after: int | None = None
    requests: list[str | None] = []  # noqa: RUF012 (one list per test, set by the fixture)

    def do_GET(self):
        wanted = self.headers.get("Range")
        type(self).requests.append(wanted)
        with open(self.translate_path(self.path), "rb") as file:
            content = file.read()
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.stop_after])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    handler = type("Handler", (Server,), {"requests": []})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    ) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}", handler
        running.shutdown()
        thread.join()


def archive(folder, base, name, files, *, md5=None):
    path = folder / name
    with tarfile.open(path, "w:gz") as tar:
        for file, content in files.items():
            info = tarfile.TarInfo(file)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    actual = hashlib.md5(path.read_bytes()).hexdigest()
    return Archive(f"{base}/{name}", name, md5 or actual)


CUB = {"CUB_200_2011/images.txt": b"1 a.jpg\n", "attributes.txt": b"x"}
MASKS = {"segmentations/a.png": b"mask"}


def test_both_archives_are_fetched_checked_and_unpacked(server, tmp_path):
    folder, base, handler = server
    images = archive(folder, base, "images.tgz", CUB)
    masks = archive(folder, base, "masks.tgz", MASKS)
    for _ in range(2):  # the second finds everything in place
        done = prepare_cub(tmp_path / "data", images=images, masks=masks)
        assert (done / "images.txt").read_bytes() == b"1 a.jpg\n"
        assert (done / "segmentations" / "a.png").read_bytes() == b"mask"
    assert handler.requests == [None, None]


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    folder, base, handler = server
    images = archive(folder, base, "images.tgz", CUB)
    handler.stop_after = 40
    with pytest.raises(ValueError, match="run the command again to continue"):
        prepare_cub(tmp_path / "data", images=images, masks=None)
    handler.stop_after = None
    prepare_cub(tmp_path / "data", images=images, masks=None)
    assert handler.requests == [None, "bytes=40-"]


def test_a_wrong_sum_unpacks_nothing(server, tmp_path):
    folder, base, _ = server
    images = archive(folder, base, "images.tgz", CUB, md5="0" * 32)
    for local in (None, folder / "images.tgz"):
        with pytest.raises(ValueError, match="has md5 .* not 000.*unpacked already") as raised:
            prepare_cub(tmp_path / "data", images=images, masks=None, images_archive=local)
        assert "remove" not in str(raised.value)
    assert (folder / "images.tgz").exists()
    with pytest.raises(ValueError, match="is a folder, not .* give its folder to train"):
        prepare_cub(tmp_path / "data", images=images, masks=None, images_archive=folder)
    assert not (tmp_path / "data" / "CUB_200_2011").exists()


def test_a_local_archive_needs_no_network(tmp_path):
    images = archive(tmp_path, "http://127.0.0.1:1", "images.tgz", CUB)
    done = prepare_cub(
        tmp_path / "data", images=images, masks=None, images_archive=tmp_path / "images.tgz"
    )
    assert (done / "images.txt").is_file()
    with pytest.raises(ValueError, match="there is no archive"):
        prepare_cub(tmp_path / "b", images=images, masks=None, images_archive=tmp_path / "no.tgz")
    with pytest.raises(ValueError, match="cannot download"):
        prepare_cub(tmp_path / "c", images=images, masks=None)


@pytest.mark.parametrize("name", ["../evil.txt", "/evil-absolute.txt", "CUB_200_2011/../../e"])
def test_nothing_is_written_outside(tmp_path, name):
    images = archive(tmp_path, "", "images.tgz", {**CUB, name: b"evil"})
    root = tmp_path / "deep" / "data"
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    try:
        prepare_cub(root, images=images, masks=None, images_archive=tmp_path / "images.tgz")
    except ValueError as error:
        assert "cannot unpack" in str(error)
    new = {p for p in tmp_path.rglob("*") if p.is_file()} - before
    assert all(p.is_relative_to(root / "CUB_200_2011") for p in new)


def test_a_link_out_of_the_archive_is_refused(tmp_path):
    path = tmp_path / "images.tgz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("CUB_200_2011")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
    images = Archive("", "images.tgz", hashlib.md5(path.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match="cannot unpack"):
        prepare_cub(tmp_path / "data", images=images, masks=None, images_archive=path)


def _member(name, kind=tarfile.REGTYPE, target="", content=b""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    return info, io.BytesIO(content)


OUTSIDE = "CUB_200_2011/../../outside"
EVIL = {
    "absolute link": [_member("CUB_200_2011/a", tarfile.SYMTYPE, "/etc/passwd")],
    "link up": [_member("CUB_200_2011/a", tarfile.SYMTYPE, "../../../outside")],
    "link up within": [_member("CUB_200_2011/a", tarfile.SYMTYPE, "../outside")],
    "link to a link": [
        _member("CUB_200_2011/a", tarfile.SYMTYPE, "b"),
        _member("CUB_200_2011/b", tarfile.SYMTYPE, ".."),
    ],
    "file through a link": [
        _member("CUB_200_2011/a", tarfile.SYMTYPE, "../../.."),
        _member("CUB_200_2011/a/outside", content=b"evil"),
    ],
    "file through a link within": [
        _member("CUB_200_2011/a", tarfile.SYMTYPE, ".."),
        _member("CUB_200_2011/a/../../outside", content=b"evil"),
    ],
    "hard link": [_member("CUB_200_2011/a", tarfile.LNKTYPE, "../../outside")],
    "hard link to an absolute name": [_member("CUB_200_2011/a", tarfile.LNKTYPE, "/etc/passwd")],
    "device": [_member("CUB_200_2011/a", tarfile.CHRTYPE)],
    "pipe": [_member("CUB_200_2011/a", tarfile.FIFOTYPE)],
    "file above": [_member(OUTSIDE, content=b"evil")],
}


@pytest.mark.parametrize("kind", EVIL)
def test_an_archive_that_reaches_outside_leaves_nothing(tmp_path, kind):
    path = tmp_path / "images.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for member in (_member("CUB_200_2011/images.txt", content=b"1 a.jpg"), *EVIL[kind]):
            tar.addfile(*member)
    images = Archive("", "images.tgz", hashlib.md5(path.read_bytes()).hexdigest())
    (tmp_path / "outside").write_text("mine")
    with pytest.raises(ValueError, match=r"cannot unpack .*images.tgz"):
        prepare_cub(tmp_path / "a" / "b", images=images, masks=None, images_archive=path)
    assert (tmp_path / "outside").read_text() == "mine"
    assert [file for file in (tmp_path / "a").rglob("*") if not file.is_dir()] == []


def test_the_folder_itself_is_no_link(tmp_path):
    """A link beside it: once moved, it would show whatever has that name there."""
    path = tmp_path / "images.tgz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(*_member("other/images.txt", content=b"1 a.jpg"))
        tar.addfile(*_member("CUB_200_2011", tarfile.SYMTYPE, "other"))
    images = Archive("", "images.tgz", hashlib.md5(path.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match="has no folder CUB_200_2011 in it"):
        prepare_cub(tmp_path / "data", images=images, masks=None, images_archive=path)


def test_links_inside_the_folder_stay(tmp_path):
    path = tmp_path / "images.tgz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(*_member("CUB_200_2011/images.txt", content=b"1 a.jpg"))
        tar.addfile(*_member("CUB_200_2011/b/names.txt", tarfile.SYMTYPE, "../images.txt"))
    images = Archive("", "images.tgz", hashlib.md5(path.read_bytes()).hexdigest())
    done = prepare_cub(tmp_path / "data", images=images, masks=None, images_archive=path)
    assert (done / "b" / "names.txt").read_bytes() == b"1 a.jpg"


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08garbage"])
def test_what_is_no_archive_is_named(tmp_path, content):
    path = tmp_path / "images.tgz"
    path.write_bytes(content)
    images = Archive("", "images.tgz", hashlib.md5(content).hexdigest())
    with pytest.raises(ValueError, match=r"cannot unpack .*images.tgz"):
        prepare_cub(tmp_path / "data", images=images, masks=None, images_archive=path)


def test_a_truncated_archive_is_named_and_leaves_nothing(tmp_path):
    images = archive(tmp_path, "", "images.tgz", {"CUB_200_2011/images.txt": bytes(100_000)})
    path = tmp_path / "images.tgz"
    path.write_bytes(path.read_bytes()[:-60])
    images = Archive("", "images.tgz", hashlib.md5(path.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match=r"cannot unpack .*images.tgz"):
        prepare_cub(tmp_path / "data", images=images, masks=None, images_archive=path)
    assert not list((tmp_path / "data").iterdir())
