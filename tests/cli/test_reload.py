"""When files are loaded again: each look is one of the test's."""

from __future__ import annotations

from pathlib import Path

from wasgi.cli.reload import PATIENCE, Stamps, Watch, stamps


class Files:
    def __init__(self) -> None:
        self.now: Stamps = {"a": (1, 1, 1)}

    def look(self) -> Stamps:
        return dict(self.now)


def test_what_stands_still_is_loaded_once() -> None:
    files = Files()
    watch = Watch(files.look)
    assert not watch.is_due()
    files.now["a"] = (2, 5, 1)
    assert not watch.is_due(), "it may still be written"
    files.now["a"] = (3, 9, 1)
    assert not watch.is_due()
    assert watch.is_due()
    assert not watch.is_due(), "also if it was broken: not until it changes"


def test_what_is_not_there_is_waited_for() -> None:
    files = Files()
    watch = Watch(files.look)
    files.now["a"] = None
    assert not watch.is_due()
    assert not watch.is_due()
    files.now["a"] = (1, 1, 2)
    assert not watch.is_due()
    assert watch.is_due(), "another file in its place"


def test_what_does_not_come_back_is_told_of_and_the_others_are_loaded() -> None:
    files = Files()
    files.now["b"] = (1, 1, 2)
    watch = Watch(files.look)
    files.now["b"] = None
    looks = [watch.is_due() for _ in range(3 * PATIENCE)]
    assert looks.index(True) == PATIENCE
    assert looks.count(True) == 1, "loading has said that it is missing"
    files.now["a"] = (2, 2, 2)
    assert [watch.is_due() for _ in range(2)] == [False, True], "nobody waits for it any more"


def test_what_came_back_as_it_was_is_not_loaded() -> None:
    files = Files()
    watch = Watch(files.look)
    before = files.look()
    files.now["a"] = None
    watch.is_due()
    files.now = before
    assert not watch.is_due()
    assert not watch.is_due()


def test_what_is_loaded_by_a_signal_is_not_loaded_again() -> None:
    files = Files()
    watch = Watch(files.look)
    files.now["a"] = (2, 2, 2)
    watch.take()
    assert not watch.is_due()
    assert not watch.is_due()


def test_stamps_see_files_come_and_go(tmp_path: Path) -> None:
    for name in ("a.wasm", "b.wat", "notes.txt", ".c.wasm"):
        (tmp_path / name).write_text("")
    alone = tmp_path / "none.wasm"
    found = stamps([str(tmp_path)], [("/x", str(alone))])
    assert list(found) == [str(tmp_path / "a.wasm"), str(tmp_path / "b.wat"), str(alone)]
    assert found[str(alone)] is None
    first = found[str(tmp_path / "a.wasm")]
    (tmp_path / "a.wasm").unlink()
    (tmp_path / "a.wasm").write_text("longer")
    assert stamps([str(tmp_path / "a.wasm")], [])[str(tmp_path / "a.wasm")] != first
