"""Lists of captions: the formats that are published, their files, and everything wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from soundpost.errors import InvalidValueError, ManifestError, PathNotFoundError
from soundpost.training.manifest import Clip, Manifest, read_manifest, split_clips

AUDIOCAPS = "audiocap_id,youtube_id,start_time,caption"
CLOTHO = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Manifest]:
    """Return the function that writes lines and files, and reads them as a list of captions."""

    def read(*lines: str, files: tuple[str, ...] = (), audio: str = "audio") -> Manifest:
        folder = tmp_path / audio
        folder.mkdir(exist_ok=True)
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        path = tmp_path / "captions.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return read_manifest(path, folder)

    return read


def faults(manifest: Manifest) -> list[tuple[int, str]]:
    """Where each fault is, and what it says."""
    return [(int(str(f.value).rpartition(":")[2]), f.detail) for f in manifest.faults]


@pytest.mark.parametrize(
    "name",
    [
        "-AheI8Epim4.wav",
        "Y-AheI8Epim4.flac",
        "-AheI8Epim4_30.mp3",
        "-AheI8Epim4_30_40.wav",
        "-AheI8Epim4_30000_40000.ogg",
        "-AheI8Epim4_30.000_40.000.wav",
        "Y-AheI8Epim4_30_40.m4a",
        "103549.wav",
        "train/a/-AheI8Epim4.WAV",
    ],
)
def test_audiocaps_is_found_by_the_names_in_use(read: Callable[..., Manifest], name: str) -> None:
    found = read(AUDIOCAPS, "103549,-AheI8Epim4,30,A woman talks", files=(name,))
    (clip,) = found.clips
    assert (clip.path.name, clip.captions, clip.origin) == (
        Path(name).name,
        ("A woman talks",),
        "-AheI8Epim4",
    )
    assert (found.kind, found.missing, found.faults) == ("AudioCaps", (), ())


def test_five_rows_of_audiocaps_are_five_captions_of_one_clip(
    read: Callable[..., Manifest],
) -> None:
    rows = [f'{n},vid_1,{"7" if n % 2 else "7.0"},"He says, ""{n}"""' for n in range(5)]
    (clip,) = read(AUDIOCAPS, *rows, files=("vid_1.wav",)).clips
    assert clip.captions == tuple(f'He says, "{n}"' for n in range(5))


def test_two_clips_of_one_video_are_two_and_of_one_origin(read: Callable[..., Manifest]) -> None:
    files = ("vid_0.wav", "vid_50.wav")
    first, second = read(AUDIOCAPS, "1,vid,0,rain", "2,vid,50,hail", files=files).clips
    assert (first.path.name, second.path.name) == files
    assert first.origin == second.origin


def test_clotho_has_five_captions_a_file(read: Callable[..., Manifest]) -> None:
    found = read(
        CLOTHO, "Distorted AM Radio noise.wav,a,b,c,d,a", files=("Distorted AM Radio noise.wav",)
    )
    (clip,) = found.clips
    assert (found.kind, clip.captions) == ("Clotho", ("a", "b", "c", "d"))
    assert found.captions == 4


def test_clotho_kept_as_flac_in_a_folder_of_its_own_is_found(read: Callable[..., Manifest]) -> None:
    (clip,) = read(CLOTHO, "rain.wav,a,b,c,d,e", files=("development/rain.flac",)).clips
    assert clip.path.name == "rain.flac"


def test_the_short_form_of_both_names_files_too(read: Callable[..., Manifest]) -> None:
    rows = ("Yr1nicOVtvkQ.wav,A woman talks", "Yr1nicOVtvkQ.wav,Water pours")
    found = read("file_name,caption", *rows, files=("train/Yr1nicOVtvkQ.mp3",))
    (clip,) = found.clips
    assert (found.kind, clip.captions) == (
        "file name and caption",
        ("A woman talks", "Water pours"),
    )


def test_a_simple_list_names_paths(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/1.wav", "2.wav"):
        (tmp_path / name).touch()
    path = tmp_path / "list.csv"
    # A spreadsheet's mark in front, and its line ends.
    text = f"Path,Caption,who\r\na/1.wav,rain,ann\r\n\r\n{tmp_path}/2.wav,Glocken läuten,ben\r\na/1.wav,hail,ann\r\n"
    path.write_text(text, encoding="utf-8-sig", newline="")
    found = read_manifest(path)
    assert [clip.captions for clip in found.clips] == [("rain", "hail"), ("Glocken läuten",)]
    assert found.faults == ()


def test_one_file_under_two_names_is_of_one_origin(tmp_path: Path) -> None:
    for name in ("1.wav", "2.wav"):
        (tmp_path / name).touch()
    path = tmp_path / "list.csv"
    path.write_text(f"path,caption\n1.wav,a\n./1.wav,b\n{tmp_path}/1.wav,c\n2.wav,d\n")
    found = read_manifest(path).clips
    assert len(found) == 4
    assert len({clip.origin for clip in found}) == 2


def test_missing_files_are_counted_once_each_with_their_line(read: Callable[..., Manifest]) -> None:
    rows = ["1,here,0,rain", "2,gone,5,a", "3,gone,5,b", "4,lost,0,c"]
    found = read(AUDIOCAPS, *rows, files=("here.wav",))
    assert [clip.captions for clip in found.clips] == [("rain",)]
    assert [(gone.line, gone.wanted.split()[0]) for gone in found.missing] == [
        (3, "gone"),
        (5, "lost"),
    ]


@pytest.mark.parametrize(
    ("header", "line", "why"),
    [
        (AUDIOCAPS, "1,vid,30", "3 fields, the header has 4"),
        (AUDIOCAPS, "1,vid,30,a,b", "5 fields"),
        (AUDIOCAPS, "1,vid,30,", "caption is empty"),
        (AUDIOCAPS, "1,,30,a", "youtube_id is empty"),
        (AUDIOCAPS, "1,../vid,30,a", "youtube_id ../vid"),
        (AUDIOCAPS, "1,vid,soon,a", "start_time soon"),
        (AUDIOCAPS, "1,vid,,a", "start_time is empty"),
        (AUDIOCAPS, "1,vid,-3,a", "start_time -3"),
        (AUDIOCAPS, "1,vid,nan,a", "start_time nan"),
        (CLOTHO, "x.wav,a,b,c,d, ", "caption_5 is empty"),
        (CLOTHO, "../x.wav,a,b,c,d,e", "no plain name"),
        ("path,caption", ",a", "path is empty"),
        ("path,caption", 'x.wav,"a dog\nbarks"', "several lines"),
        ("path,caption", f"{'x' * 5000}.wav,a", "File name too long"),
        ("path,caption", f"x.wav,{'a' * 200_000}", "field limit"),
    ],
)
def test_a_line_that_makes_no_sense_is_named_and_the_others_are_read(
    read: Callable[..., Manifest], header: str, line: str, why: str
) -> None:
    good = {AUDIOCAPS: "9,ok,0,a", CLOTHO: "ok.wav,a,b,c,d,e"}.get(header, "ok.wav,a")
    found = read(header, line, good, files=("ok.wav",))
    ((number, detail),) = faults(found)
    assert number == 2
    assert why in detail
    assert found.faults[0].code == "manifest-line"
    assert [clip.path.name for clip in found.clips] == ["ok.wav"]


def test_a_quotation_mark_that_never_closes_is_found_where_it_is(
    read: Callable[..., Manifest],
) -> None:
    found = read("path,caption", "ok.wav,a", 'x.wav,"rain', "ok.wav,b", files=("ok.wav",))
    ((number, detail),) = faults(found)
    assert (number, "quotation mark" in detail) == (3, True)


def test_bytes_that_are_no_utf8_spoil_their_line_only(tmp_path: Path) -> None:
    (tmp_path / "x.wav").touch()
    path = tmp_path / "list.csv"
    path.write_bytes(b"path,caption\nx.wav,gl\xf6ckchen\nx.wav,bells\n")
    found = read_manifest(path)
    assert faults(found) == [(2, "caption is not UTF-8")]
    assert found.clips[0].captions == ("bells",)


def test_clotho_files_named_twice_are_faults(read: Callable[..., Manifest]) -> None:
    row = "x.wav,a,b,c,d,e"
    assert faults(read(CLOTHO, row, row, files=("x.wav",))) == [(3, "x.wav was on line 2 already")]


def test_two_files_of_one_name_are_not_guessed_between(read: Callable[..., Manifest]) -> None:
    found = read(CLOTHO, "x.wav,a,b,c,d,e", files=("a/x.wav", "b/x.wav"))
    ((_, detail),) = faults(found)
    assert "x.wav is there twice" in detail


@pytest.mark.parametrize(
    "text", ["", "\n\n", "x.wav,a dog\n", "file_name,keywords\n", "path;caption\n", "path,path\n"]
)
def test_what_is_no_list_of_captions_is_refused_with_the_formats(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ManifestError, match=r"youtube_id.*file_name.*path,caption") as refused:
        read_manifest(path)
    assert "list.csv" in str(refused.value)
    assert refused.value.code == "manifest"


def test_a_list_or_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PathNotFoundError, match=r"none\.csv"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "list.csv").touch()
    with pytest.raises(PathNotFoundError, match="nowhere"):
        read_manifest(tmp_path / "list.csv", tmp_path / "nowhere")


def clips(count: int) -> list[Clip]:
    return [Clip(Path(f"{n}-{m}.wav"), ("a",), f"video {n}") for n in range(count) for m in (0, 1)]


def test_a_split_is_by_origin_and_holds_every_clip_once() -> None:
    split = split_clips(clips(100), seed=1, held_out=0.2, develop=0.1)
    parts = [split.train, split.develop, split.held_out]
    assert [len(part) for part in parts] == [140, 20, 40]
    assert sorted(clip.path for part in parts for clip in part) == sorted(
        clip.path for clip in clips(100)
    )
    origins = [{clip.origin for clip in part} for part in parts]
    assert sum(map(len, origins)) == 100


def test_a_split_is_the_same_again_and_another_for_another_seed() -> None:
    assert split_clips(clips(40)) == split_clips(clips(40)[::-1][::-1])
    assert split_clips(clips(40)).held_out != split_clips(clips(40), seed=1).held_out


def test_one_recording_more_moves_hardly_any_other() -> None:
    before, after = split_clips(clips(200)), split_clips(clips(201))
    assert len(set(before.held_out) - set(after.held_out)) <= 2


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, -0.1, float("nan")])
def test_shares_that_leave_nothing_are_refused(share: float) -> None:
    with pytest.raises(InvalidValueError):
        split_clips(clips(100), held_out=share, develop=share)


def test_too_few_recordings_are_refused_however_many_clips_they_have() -> None:
    with pytest.raises(InvalidValueError, match="7 different recordings"):
        split_clips(clips(7))
