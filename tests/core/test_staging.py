from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from kind_core.errors import OutputError
from kind_core.files.locking import waited_for
from kind_core.files.staging import PART, OutputKind, check_output, find_foreign, link_file, recover, staged

ANYTHING = OutputKind("anything", lambda path: None)
NOTES = OutputKind("a folder of notes", lambda path: find_foreign(path, lambda name: name.endswith(".txt")))


def _write_folder(path: Path, text: str = "new") -> None:
    path.mkdir()
    (path / "a").write_text(text)


def _fail_inside(out: Path, error: type[BaseException] | BaseException, force: bool = False) -> None:
    with staged(out, ANYTHING, force=force) as path:
        _write_folder(path)
        raise error


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An output that is there already."""
    path = tmp_path / "out"
    _write_folder(path, "old")
    return path


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with staged(tmp_path / "new" / "out", ANYTHING) as path:
        _write_folder(path)
        assert not (tmp_path / "new" / "out").exists()
    assert (tmp_path / "new" / "out" / "a").read_text() == "new"
    assert os.listdir(tmp_path / "new") == ["out"]


def test_a_file_appears_whole(tmp_path: Path) -> None:
    with staged(tmp_path / "out.png", ANYTHING) as path:
        path.write_bytes(b"png")
    assert (tmp_path / "out.png").read_bytes() == b"png"
    assert os.listdir(tmp_path) == ["out.png"]


def test_the_temporary_lies_beside_its_place(tmp_path: Path) -> None:
    # so that the rename stays on one file system
    with staged(tmp_path / "out", ANYTHING) as path:
        assert path.parent.parent == tmp_path
        assert path.parent.name.startswith(".out.")
        assert path.parent.name.endswith(".partial")
        path.write_text("")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_inside_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        _fail_inside(tmp_path / "out", error)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_inside_keeps_the_old_output(old: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        _fail_inside(old, error, force=True)
    assert (old / "a").read_text() == "old"
    assert os.listdir(old.parent) == ["out"]


def test_an_output_that_exists_is_not_touched_without_force(old: Path) -> None:
    with pytest.raises(OutputError, match="already exists") as caught, staged(old, ANYTHING):
        pytest.fail("the body ran")
    assert "--force" in caught.value.hint
    assert (old / "a").read_text() == "old"


@pytest.mark.parametrize("was", ["folder", "file"])
@pytest.mark.parametrize("becomes", ["folder", "file"])
def test_force_replaces_whatever_was_there(tmp_path: Path, was: str, becomes: str) -> None:
    out = tmp_path / "out"
    if was == "folder":
        _write_folder(out, "old")
        (out / "extra").write_text("")
    else:
        out.write_text("old")
    with staged(out, ANYTHING, force=True) as path:
        if becomes == "folder":
            _write_folder(path)
        else:
            path.write_text("new")
    assert (out / "a" if becomes == "folder" else out).read_text() == "new"
    assert not (out / "extra").exists()
    assert os.listdir(tmp_path) == ["out"]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "of" / "may").mkdir(parents=True)
    (folder / "of" / "may" / "1.txt").write_text("rain")
    return folder


def test_force_replaces_what_is_of_the_same_kind_alone(notes: Path) -> None:
    (notes / "of" / "photo.jpg").write_text("")
    with pytest.raises(OutputError) as caught, staged(notes, NOTES, force=True):
        pytest.fail("the body ran")
    assert caught.value.message == f"{notes} is not a folder of notes, so it is kept: of/photo.jpg"
    assert "--force replaces only a folder of notes" in caught.value.hint
    (notes / "of" / "photo.jpg").unlink()
    with staged(notes, NOTES, force=True) as path:
        _write_folder(path)
    assert os.listdir(notes) == ["a"]


def test_what_comes_while_the_body_runs_is_kept_too(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write_slowly() -> None:
        with staged(out, ANYTHING) as path:
            _write_folder(path)
            out.write_text("of another program")

    with pytest.raises(OutputError, match="already exists"):
        write_slowly()
    assert out.read_text() == "of another program"


@pytest.mark.parametrize("name", [".DS_Store", "of/._1.txt", "Thumbs.db", "of/.1.txt.a1b2c3d4.partial/1.jpg"])
def test_what_a_file_manager_or_a_killed_process_left_is_no_work(notes: Path, name: str) -> None:
    (notes / name).parent.mkdir(exist_ok=True)
    (notes / name).write_text("")
    check_output(notes, NOTES, force=True)


def test_a_link_to_a_folder_counts_and_is_not_entered(notes: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (notes / "more").symlink_to(tmp_path / "more")
    assert find_foreign(notes, lambda name: name.endswith(".txt")) == "more"


def test_an_empty_folder_holds_nothing_to_lose(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with staged(tmp_path / "out", PART, force=True) as path:
        path.write_text("new")
    assert (tmp_path / "out").read_text() == "new"


@pytest.mark.parametrize("out", [".", "/", "a/.."])
def test_a_path_without_a_name_of_its_own_is_refused(out: str) -> None:
    with pytest.raises(OutputError, match="names a folder that is there"):
        check_output(Path(out), ANYTHING, force=True)


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    """An options file can say what no command line can."""
    with pytest.raises(OutputError, match="its name holds NUL"):
        check_output(tmp_path / "a\0b", ANYTHING, force=True)


def test_force_replaces_a_link_and_not_what_it_points_to(old: Path) -> None:
    link = old.with_name("link")
    link.symlink_to(old)
    with staged(link, ANYTHING, force=True) as path:
        _write_folder(path)
    assert not link.is_symlink()
    assert (link / "a").read_text() == "new"
    assert (old / "a").read_text() == "old"


@pytest.fixture
def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that cannot exchange two folders."""
    monkeypatch.setattr("kind_core.files.publishing._exchange", lambda one, other: False)


@pytest.mark.usefixtures("without_exchange")
def test_a_folder_is_replaced_where_the_system_exchanges_nothing(old: Path) -> None:
    with staged(old, ANYTHING, force=True) as path:
        _write_folder(path)
    assert (old / "a").read_text() == "new"
    assert os.listdir(old.parent) == ["out"]


@pytest.mark.usefixtures("without_exchange")
def test_the_old_output_comes_back_when_the_rename_fails(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def fail_on_the_new(self: Path, target: Path) -> Path:
        if self.parent.name.endswith(".partial") and self.name == "out":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_new)
    with pytest.raises(OutputError, match="Input/output error"), staged(old, ANYTHING, force=True) as path:
        _write_folder(path)
    assert (old / "a").read_text() == "old"
    assert os.listdir(old.parent) == ["out"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, code: int) -> None:
    with pytest.raises(OutputError, match="the disk is full") as caught:
        _fail_inside(tmp_path / "out", OSError(code, os.strerror(code)))
    assert "free some space" in caught.value.hint
    assert str(tmp_path / "out") in caught.value.message
    assert os.listdir(tmp_path) == []


def test_a_lock_that_cannot_be_signed_on_a_full_disk_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OutputError, match="the disk is full"), staged(tmp_path / "out", ANYTHING):
        pytest.fail("nothing is begun")
    assert os.listdir(tmp_path) == []


def test_a_body_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"), staged(tmp_path / "out", ANYTHING):
        pass
    assert os.listdir(tmp_path) == []


def test_a_file_that_the_body_cannot_read_is_named(tmp_path: Path) -> None:
    message = r"cannot write .*out: No such file or directory: .*photos\.parquet"
    with pytest.raises(OutputError, match=message), staged(tmp_path / "out", ANYTHING):
        (tmp_path / "photos.parquet").read_bytes()


def test_a_parent_without_permission_is_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kind_core.files.staging.os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(OutputError, match=f"no permission in {tmp_path}"):
        check_output(tmp_path / "a" / "out", ANYTHING, force=False)


def test_a_temporary_that_cannot_be_made_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("kind_core.files.holders.tempfile.mkdtemp", refuse)
    with pytest.raises(OutputError, match="Permission denied"), staged(tmp_path / "out", ANYTHING):
        pytest.fail("the body ran")


@pytest.mark.parametrize("place", ["file/out", "file/a/b/out"])
def test_a_parent_that_is_a_file_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=f"{tmp_path / 'file'} is not a folder"):
        check_output(tmp_path / place, ANYTHING, force=False)


def test_a_free_place_is_fine(old: Path) -> None:
    check_output(old.with_name("free"), ANYTHING, force=False)
    check_output(old, ANYTHING, force=True)


def _killed(folder: Path, *, at: str) -> None:
    """What a process leaves that is killed while it replaces `folder`/out: before, between or after the renames."""
    holder = folder / ".out.a1b2c3d4.partial"
    (holder / "out").mkdir(parents=True)
    (holder / "out" / "new").touch()
    if at != "before":
        (folder / "out").rename(holder / "replaced")
    if at == "after":
        (holder / "out").rename(folder / "out")


@pytest.mark.parametrize(("at", "content"), [("before", "old"), ("between", "new"), ("after", "new")])
def test_what_a_killed_process_left_is_mended(tmp_path: Path, at: str, content: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    other = tmp_path / ".other.partial"  # not ours
    other.mkdir()
    _killed(tmp_path, at=at)
    recover(tmp_path)
    assert [file.name for file in (tmp_path / "out").iterdir()] == [content]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.partial", "out"]


def test_mending_looks_at_no_folder_that_is_not_there(tmp_path: Path) -> None:
    recover(tmp_path / "none")


def test_a_link_to_a_symbolic_link_is_the_file_itself(tmp_path: Path) -> None:
    """As the Hub's cache has them: relative, so that they lead nowhere from another folder."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "blobs" / "1").write_text("weights")
    (tmp_path / "snapshot" / "model").symlink_to("../blobs/1")
    (tmp_path / "far" / "away").mkdir(parents=True)
    link_file(tmp_path / "snapshot" / "model", tmp_path / "far" / "away" / "model")
    assert (tmp_path / "far" / "away" / "model").read_text() == "weights"


def test_who_waits_for_another_writer_comes_after_it(tmp_path: Path) -> None:
    """Of two at the same time each adds its own number to what the other wrote."""
    file = tmp_path / "count"
    file.write_text("0")
    is_held, told = threading.Event(), []

    def hold() -> None:
        with waited_for(file):
            is_held.set()
            with pytest.raises(OutputError, match="count is being written by process"):
                other()
            before = int(file.read_text())
            time.sleep(0.3)
            with staged(file, PART, force=True) as path:
                path.write_text(str(before + 1))

    def other() -> None:
        def look() -> None:
            try:
                check_output(file, PART, force=True)
            except OutputError as error:
                told.append(error)

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        raise told[0]

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    with waited_for(file):
        file.write_text(str(int(file.read_text()) + 1))
    thread.join()
    assert file.read_text() == "2"
    assert os.listdir(tmp_path) == ["count"]
