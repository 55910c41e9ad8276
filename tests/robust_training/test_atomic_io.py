"""Folders that appear completely or not at all."""

import pytest

from robust_training.atomic_io import new_folder


@pytest.mark.parametrize("replace", [True, False])
def test_a_folder_that_exists_at_the_end_is_replaced_only_on_request(tmp_path, replace):
    folder = tmp_path / "folder"

    def write():
        with new_folder(folder, replace=replace) as partial:
            folder.mkdir()  # meanwhile, by somebody else
            for name in ("a", "b"):
                (folder / name).write_text("old")
                (partial / name).write_text("new")

    if replace:
        write()
    else:
        with pytest.raises(OSError, match="not empty"):
            write()
    assert (folder / "a").read_text() == ("new" if replace else "old")
    assert [*tmp_path.iterdir()] == [folder]


def test_an_error_leaves_no_folder(tmp_path):
    def write():
        with new_folder(tmp_path / "folder") as partial:
            (partial / "a").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert not [*tmp_path.iterdir()]
