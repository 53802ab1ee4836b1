"""One opener: plain files under a ceiling, no pipe that blocks, no device, no link out of a run's folder."""

import os
import socket

import pytest

from cifarnet.core.plain_file import open_plain, read_bytes, read_text


def test_a_plain_file_and_a_link_to_one(tmp_path):
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "link").symlink_to("a")
    with open_plain(tmp_path / "a") as file:
        assert file.read() == b"text"
    assert read_bytes(tmp_path / "link") == b"text"


def test_what_is_no_plain_file_is_named_and_blocks_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a pipe"), ("folder", "a folder"), ("null", "a device"), ("endless", "a device")):
        with pytest.raises(OSError, match=kind):
            open_plain(tmp_path / name)
    with pytest.raises(OSError):
        open_plain(tmp_path / "socket")
    server.close()


def test_the_ceiling(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert len(read_bytes(tmp_path / "a", ceiling=100)) == 100
    with pytest.raises(OSError, match="more than 99 bytes"):
        read_bytes(tmp_path / "a", ceiling=99)


def test_a_sparse_file_of_a_terabyte_costs_nothing(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="more than"):
        read_text(tmp_path / "sparse")


def test_links_that_lead_out_of_a_folder(tmp_path):
    home, other = tmp_path / "run", tmp_path / "run-2"
    for folder in (home, other):
        folder.mkdir()
        (folder / "a").write_text("text")
    (home / "inside").symlink_to("a")
    (home / "outside").symlink_to(other / "a")
    (home / "up").symlink_to("../run-2/a")
    (home / "deep").symlink_to(other)
    assert read_text(home / "a", within=home) == read_text(home / "inside", within=home) == "text"
    for name in ("outside", "up", "deep/a"):
        with pytest.raises(OSError, match="leads out of"):
            read_text(home / name, within=home)
    (tmp_path / "alias").symlink_to(home)  # the folder itself may be reached through a link
    assert read_text(tmp_path / "alias" / "a", within=tmp_path / "alias") == "text"


def test_text_is_utf_8_with_or_without_a_byte_order_mark(tmp_path):
    (tmp_path / "a").write_bytes("\ufeffchien\nchat\n".encode())
    assert read_text(tmp_path / "a").splitlines() == ["chien", "chat"]
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    with pytest.raises(OSError, match="UTF-8"):
        read_text(tmp_path / "b")
