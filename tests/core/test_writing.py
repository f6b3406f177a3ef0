"""Files that are replaced whole, wherever their names lead."""

import os
import pathlib
import threading

from qevo.core.writing import write_whole


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: pathlib.Path) -> None:
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    write_whole(target, b"before")
    link.symlink_to(target)
    write_whole(link, b"after")
    assert link.is_symlink()
    assert target.read_bytes() == b"after"
    assert sorted(path.name for path in target.parent.iterdir()) == ["target"]


def test_a_pipe_is_written_to(tmp_path: pathlib.Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"content")
    reader.join(timeout=10)
    assert read == [b"content"]
    assert pipe.is_fifo()
