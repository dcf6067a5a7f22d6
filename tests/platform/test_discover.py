"""Files, folders and lists become what is to be ingested, and nothing is left out in silence."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from soundpost.archive.discover import Selection, find_files, suffixes
from soundpost.errors import InvalidValueError, NoAudioFoundError, PathNotFoundError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder as a recorder and a person leave it."""
    root = tmp_path / "archive"
    for name in (
        "b.wav",
        "a.FLAC",
        "notes.txt",
        "site-3/deep/c.ogg",
        "site-3/d.wav",
        "site-4/e.mp3",
        "._b.wav",
        ".Trashes/old.wav",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def names(paths: list[Path], root: Path) -> list[str]:
    """Return paths below a root, as text."""
    return [path.relative_to(root).as_posix() for path in paths]


def test_a_folder_gives_its_audio_sorted_and_names_the_rest(archive: Path) -> None:
    found = find_files([archive], Selection())
    assert names(found.files, archive) == [
        "a.FLAC",
        "b.wav",
        "site-3/d.wav",
        "site-3/deep/c.ogg",
        "site-4/e.mp3",
    ]
    assert names(found.not_audio, archive) == [".Trashes", "._b.wav", "notes.txt"]
    assert all(path.is_absolute() for path in found.files)


def test_folders_within_are_left_alone_if_asked(archive: Path) -> None:
    found = find_files([archive], Selection(recursive=False))
    assert names(found.files, archive) == ["a.FLAC", "b.wav"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.wav", ["b.wav", "site-3/d.wav"]),
        ("*.WAV", ["b.wav", "site-3/d.wav"]),
        ("site-3/*", ["site-3/d.wav"]),
        ("site-3/**", ["site-3/d.wav", "site-3/deep/c.ogg"]),
        ("**/*.ogg", ["site-3/deep/c.ogg"]),
        ("**/*.wav", ["b.wav", "site-3/d.wav"]),
        ("[ab]*", ["a.FLAC", "b.wav"]),
        ("*.txt", ["notes.txt"]),
    ],
)
def test_a_pattern_selects(archive: Path, pattern: str, expected: list[str]) -> None:
    found = find_files([archive], Selection(pattern=pattern))
    assert names(found.files, archive) == expected
    assert found.left_out


def test_a_named_file_is_tried_whatever_its_suffix(archive: Path) -> None:
    found = find_files([archive / "notes.txt"], Selection())
    assert names(found.files, archive) == ["notes.txt"]


def test_the_same_file_named_twice_is_one(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive)
    found = find_files(["b.wav", archive, "./site-3/../b.wav"], Selection(recursive=False))
    assert names(found.files, archive) == ["b.wav", "a.FLAC"]


def test_a_list_names_files_and_folders(archive: Path, tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    lines = [
        "# what to take",
        "",
        str(archive / "b.wav"),
        f"{archive / 'site-3'}",
        "/not/there.wav",
    ]
    listing.write_text("\n".join(lines), encoding="utf-8")
    found = find_files([f"@{listing}"], Selection())
    assert found.files[:3] == [
        archive / "b.wav",
        archive / "site-3/d.wav",
        archive / "site-3/deep/c.ogg",
    ]
    assert found.files[3] == Path("/not/there.wav"), "a line that is not there is tried, and fails"


def test_a_file_whose_name_begins_with_at_is_a_file(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive)
    Path("@home.wav").write_bytes(b"x")
    assert find_files(["@home.wav"], Selection()).files == [archive / "@home.wav"]


@pytest.mark.parametrize("path", ["missing", "missing.wav", "@missing.txt"])
def test_a_wrong_path_is_an_error(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PathNotFoundError, match="missing"):
        find_files([path], Selection())


@pytest.mark.parametrize("path", ["", "  "])
def test_an_empty_path_is_not_the_current_folder(path: str) -> None:
    with pytest.raises(InvalidValueError):
        find_files([path], Selection())


def test_no_path_at_all_is_an_error() -> None:
    with pytest.raises(InvalidValueError):
        find_files([], Selection())


def test_a_folder_without_audio_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(NoAudioFoundError, match=r"\.txt \(1\)"):
        find_files([tmp_path], Selection())


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoAudioFoundError, match="no files"):
        find_files([tmp_path], Selection())


def test_an_empty_list_is_an_error(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(NoAudioFoundError):
        find_files([f"@{listing}"], Selection())


def test_a_pattern_that_matches_nothing_says_so(archive: Path) -> None:
    with pytest.raises(NoAudioFoundError, match="pattern matches none"):
        find_files([archive], Selection(pattern="*.aiff"))


def test_a_folder_named_like_audio_and_a_broken_link_are_tried(tmp_path: Path) -> None:
    (tmp_path / "x.wav").mkdir()
    (tmp_path / "y.wav").symlink_to(tmp_path / "gone.wav")
    found = find_files([tmp_path], Selection())
    assert names(found.files, tmp_path) == ["x.wav", "y.wav"]


def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "take.wav").write_bytes(b"x")
    (tmp_path / "20260315_043000.wav").symlink_to(tmp_path / "take.wav")
    found = find_files([tmp_path / "20260315_043000.wav"], Selection())
    assert found.files == [tmp_path / "20260315_043000.wav"]


def test_linked_folders_are_followed_but_never_round_and_round(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.wav").write_bytes(b"x")
    (tmp_path / "real/up").symlink_to(tmp_path)
    (tmp_path / "card").symlink_to(tmp_path / "real")
    found = find_files([tmp_path], Selection())
    assert [path.name for path in found.files] == ["a.wav"]


def test_names_that_are_not_utf8_are_found(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    (tmp_path / name).write_bytes(b"x")
    assert find_files([tmp_path], Selection()).files == [tmp_path / name]


def test_suffixes_are_counted_and_cut() -> None:
    paths = [Path(name) for name in ("a.txt", "b.txt", "c", "d.jpg", "e.png")]
    assert suffixes(paths) == ".txt (2), none (1), .jpg (1), ..."


def test_a_pattern_with_folders_is_matched_from_the_folder_down() -> None:
    selection = Selection(pattern="a/*/c.wav")
    assert selection.matches(PurePosixPath("a/b/c.wav"))
    assert not selection.matches(PurePosixPath("x/a/b/c.wav"))
