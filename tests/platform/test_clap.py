"""The CLAP encoder over a tiny, randomly initialised checkpoint, whole and broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import ClapFeatureExtractor, ClapModel

from soundpost.errors import BrokenCheckpointError, InvalidValueError, ModelNotFoundError
from soundpost.models.clap import ClapEncoder, ClapMel
from soundpost.models.encoder import AudioTextEncoder

RATE_HZ = 48_000
WINDOW = 10 * RATE_HZ


@pytest.fixture(scope="module")
def checkpoints(
    tmp_path_factory: pytest.TempPathFactory, save_tiny_clap: Callable[..., Path]
) -> dict[bool, Path]:
    folder = tmp_path_factory.mktemp("clap")
    return {
        fusion: save_tiny_clap(folder / f"tiny-{'fused' if fusion else 'plain'}", fusion=fusion)
        for fusion in (False, True)
    }


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "fusion"])
def fusion(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def encoder(checkpoints: dict[bool, Path], fusion: bool) -> ClapEncoder:
    return ClapEncoder.load(str(checkpoints[fusion]))


@pytest.fixture
def broken(checkpoints: dict[bool, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoints[False], tmp_path / "broken-clap"))


@lru_cache(maxsize=1)
def sounds() -> NDArray[np.float32]:
    rng = np.random.default_rng(3)
    t = np.arange(WINDOW) / RATE_HZ
    noise = 0.1 * rng.standard_normal(WINDOW)
    chirp = 0.3 * np.sin(2 * np.pi * (200 + 400 * t) * t) * (t > 5)
    return np.stack([noise, chirp + 0.001 * noise, np.sin(2 * np.pi * 900 * t) * noise]).astype(
        "f4"
    )


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    path.unlink()  # load_file maps the file; writing over it in place would pull the map away.
    save_file(weights, path, metadata={"format": "pt"})


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# --- the front end ----------------------------------------------------------------------------


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
@pytest.mark.parametrize("settings", [{}, {"feature_size": 80, "frequency_min": 50}])
def test_the_mel_front_end_is_the_feature_extractors(
    truncation: str, settings: dict[str, int]
) -> None:
    extractor = ClapFeatureExtractor(truncation=truncation, **settings)
    waves = sounds()
    theirs = extractor(list(waves), sampling_rate=RATE_HZ, return_tensors="pt")["input_features"]
    ours = ClapMel(extractor)(torch.from_numpy(waves))
    assert ours.shape == theirs[:, 0].shape
    # Ours is single precision: bands further below the loudest hold rounding errors.
    audible = theirs[:, 0] > theirs[:, 0].amax(dim=(1, 2), keepdim=True) - 70.0
    difference_db = (ours - theirs[:, 0]).abs()[audible]
    assert difference_db.max() < 1e-3


def test_silence_is_the_floor() -> None:
    mel = ClapMel(ClapFeatureExtractor())(torch.zeros(1, 4800))
    torch.testing.assert_close(mel, torch.full_like(mel, -100.0))


# --- a whole checkpoint -----------------------------------------------------------------------


def test_it_is_an_encoder_with_the_checkpoints_numbers(
    encoder: ClapEncoder, checkpoints: dict[bool, Path], fusion: bool
) -> None:
    assert isinstance(encoder, AudioTextEncoder)
    spec = encoder.spec
    assert spec.name == checkpoints[fusion].name
    assert (spec.dimension, spec.sample_rate_hz, spec.window_s) == (48, RATE_HZ, 10.0)
    assert spec.tag_labels == ()
    assert len(spec.revision) == 12


def test_windows_give_unit_vectors_and_frames(encoder: ClapEncoder) -> None:
    encoding = encoder.encode_audio(sounds())
    assert encoding.embedding.shape == (3, 48)
    assert encoding.frames.shape == (3, 32, 48)
    assert encoding.frame_hop_s == pytest.approx(0.3125)
    assert encoding.tags is None
    for vectors in (encoding.embedding, encoding.frames):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1.0, rtol=1e-5)


def test_the_vector_is_the_one_transformers_gives(
    encoder: ClapEncoder, checkpoints: dict[bool, Path], fusion: bool
) -> None:
    folder = checkpoints[fusion]
    model = ClapModel.from_pretrained(folder).eval()
    inputs = ClapFeatureExtractor.from_pretrained(folder)(
        list(sounds()), sampling_rate=RATE_HZ, return_tensors="pt"
    )
    # Left alone, the extractor marks a random clip of each batch as longer than it is.
    inputs["is_longer"] = torch.zeros(3, 1, dtype=torch.bool)
    with torch.inference_mode():
        expected = model.get_audio_features(**inputs).pooler_output.numpy()
    np.testing.assert_allclose(encoder.embed_audio(sounds()), expected, atol=1e-4)


def test_frames_follow_time(encoder: ClapEncoder) -> None:
    late = sounds()[1].copy()
    early = np.roll(late, -5 * RATE_HZ)
    quiet, loud = encoder.encode_audio(late[None]).frames[0].reshape(2, 16, 48)
    loud_first, _ = encoder.encode_audio(early[None]).frames[0].reshape(2, 16, 48)
    middle = slice(4, 12)
    same = np.mean(np.sum(loud[middle] * loud_first[middle], axis=1))
    other = np.mean(np.sum(quiet[middle] * loud_first[middle], axis=1))
    assert same > other


def test_a_vector_depends_on_neither_run_nor_batch(encoder: ClapEncoder) -> None:
    batch = encoder.embed_audio(sounds())
    np.testing.assert_array_equal(batch, encoder.embed_audio(sounds()))
    alone = np.concatenate([encoder.embed_audio(wave[None]) for wave in sounds()])
    np.testing.assert_allclose(batch, alone, atol=1e-5)


def test_a_short_row_is_repeated_from_its_own_length(
    encoder: ClapEncoder, checkpoints: dict[bool, Path], fusion: bool
) -> None:
    short = sounds()[0, : 3 * RATE_HZ]
    expected = np.zeros(WINDOW, np.float32)
    expected[: 9 * RATE_HZ] = np.tile(short, 3)
    row = np.full((1, WINDOW), 0.7, np.float32)
    row[0, : short.size] = short
    vector = encoder.embed_audio(row, np.array([short.size]))
    np.testing.assert_array_equal(vector, encoder.embed_audio(expected[None]))
    np.testing.assert_array_equal(vector, encoder.embed_audio(short[None]))


def test_an_empty_row_is_silence(encoder: ClapEncoder) -> None:
    silence = np.zeros((1, WINDOW), np.float32)
    np.testing.assert_array_equal(
        encoder.embed_audio(sounds()[:1], np.array([0])), encoder.embed_audio(silence)
    )


def test_more_than_a_window_is_refused_not_cropped(encoder: ClapEncoder) -> None:
    with pytest.raises(InvalidValueError, match="480000"):
        encoder.embed_audio(np.zeros((1, WINDOW + 1), np.float32))


def test_texts_of_any_length_give_unit_vectors(encoder: ClapEncoder) -> None:
    texts = ["a dog barks", "", "rain", "word " * 200, "Ünïcödé 狗"]
    vectors = encoder.embed_text(texts)
    assert vectors.shape == (5, 48)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(vectors[2:3], encoder.embed_text(["rain"]), atol=1e-5)
    assert encoder.embed_text([]).shape == (0, 48)


def test_more_texts_than_a_batch_keep_their_order(encoder: ClapEncoder) -> None:
    texts = [f"sound number {n}" for n in range(70)]
    vectors = encoder.embed_text(texts)
    np.testing.assert_allclose(vectors[-1:], encoder.embed_text(texts[-1:]), atol=1e-5)


def test_token_states_come_with_the_vectors(encoder: ClapEncoder) -> None:
    texts = ["rain", "", *(f"sound number {n}" for n in range(70)), "word " * 200]
    encoding = encoder.encode_text(texts)
    np.testing.assert_allclose(encoding.embedding, encoder.embed_text(texts), atol=1e-6)
    assert encoding.tokens.shape == (73, encoding.lengths.max(), encoder.spec.token_width)
    assert np.isfinite(encoding.tokens).all()
    for row, length in zip(encoding.tokens, encoding.lengths, strict=True):
        assert row[:length].any(axis=-1).all()
        assert not row[length:].any()
    alone = encoder.encode_text(texts[:1])
    np.testing.assert_allclose(alone.tokens[0], encoding.tokens[0, : alone.lengths[0]], atol=1e-5)
    assert encoder.encode_text([]).tokens.shape == (0, 0, encoder.spec.token_width)


def test_half_precision_weights_are_computed_in_single(broken: Path) -> None:
    def halve(weights: dict[str, torch.Tensor]) -> None:
        for name, tensor in weights.items():
            weights[name] = tensor.half() if tensor.is_floating_point() else tensor

    edit_weights(broken, halve)
    edit_json(broken / "config.json", dtype="float16")
    assert ClapEncoder.load(str(broken)).embed_audio(sounds()).dtype == np.float32


# --- relevance and revision -------------------------------------------------------------------


def test_relevance_is_calibrated_by_the_file_beside_the_weights(broken: Path) -> None:
    cosines = np.array([[0.0, 0.2, 0.4]], np.float32)
    vectors = np.zeros((1, 48), np.float32)
    default = ClapEncoder.load(str(broken)).relevance(vectors, cosines)
    np.testing.assert_allclose(default[0, 1], 0.5, atol=1e-6)
    assert np.all(np.diff(default[0]) > 0)
    (broken / "calibration.json").write_text('{"slope": 10, "offset": -1}')
    calibrated = ClapEncoder.load(str(broken)).relevance(vectors, cosines)
    np.testing.assert_allclose(calibrated, 1 / (1 + np.exp(1 - 10 * cosines)), rtol=1e-5)


@pytest.mark.parametrize("text", ['{"slope": -1, "offset": 0}', '{"slope": 1}', "nonsense", "[]"])
def test_a_calibration_that_is_no_rising_curve_is_refused(broken: Path, text: str) -> None:
    (broken / "calibration.json").write_text(text)
    with pytest.raises(BrokenCheckpointError, match=r"calibration\.json"):
        ClapEncoder.load(str(broken))


def test_the_revision_follows_the_weights(broken: Path, checkpoints: dict[bool, Path]) -> None:
    revision = ClapEncoder.load(str(broken)).spec.revision
    assert revision == ClapEncoder.load(str(checkpoints[False])).spec.revision
    edit_weights(broken, lambda weights: weights["text_projection.linear2.bias"].add_(0.01))
    assert ClapEncoder.load(str(broken)).spec.revision != revision


# --- broken checkpoints -----------------------------------------------------------------------


def _zero_text_projection(weights: dict[str, torch.Tensor]) -> None:
    weights["text_projection.linear1.weight"].zero_()
    weights["text_projection.linear2.bias"].fill_(1.0)


def _zero_audio_projection(weights: dict[str, torch.Tensor]) -> None:
    weights["audio_projection.linear1.weight"].zero_()
    weights["audio_projection.linear2.bias"].fill_(1.0)


def _nothing_at_all(weights: dict[str, torch.Tensor]) -> None:
    weights["audio_projection.linear2.weight"].zero_()


def _not_a_number(weights: dict[str, torch.Tensor]) -> None:
    weights["text_model.pooler.dense.weight"][3, 4] = float("nan")


def _missing(weights: dict[str, torch.Tensor]) -> None:
    del weights["text_projection.linear1.weight"]


def _wrong_shape(weights: dict[str, torch.Tensor]) -> None:
    weights["text_projection.linear1.weight"] = torch.zeros(48, 16)


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (_zero_text_projection, "distinct texts: .*text tower has collapsed"),
        (_zero_audio_projection, "distinct sounds: .*audio tower has collapsed"),
        (_nothing_at_all, "declared shape: audio vectors have norm 0"),
        (_not_a_number, r"finite weights: text_model\.pooler\.dense\.weight holds NaN"),
        (_missing, r"missing weights: 1 tensors, the first is text_projection\.linear1\.weight"),
        (_wrong_shape, "weights: "),
    ],
)
def test_damaged_weights_are_refused_by_name(
    broken: Path, damage: Callable[[dict[str, torch.Tensor]], None], finding: str
) -> None:
    edit_weights(broken, damage)
    with pytest.raises(BrokenCheckpointError, match=finding) as caught:
        ClapEncoder.load(str(broken))
    assert "broken-clap" in str(caught.value)


def test_pickled_weights_are_refused_unread(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    (broken / "pytorch_model.bin").write_bytes(b"\x80\x04 never loaded")
    with pytest.raises(BrokenCheckpointError, match=r"pickle, pytorch_model\.bin"):
        ClapEncoder.load(str(broken))


def test_a_folder_without_weights_is_refused(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    with pytest.raises(BrokenCheckpointError, match="no weights"):
        ClapEncoder.load(str(broken))


def test_cut_off_weights_are_refused(broken: Path) -> None:
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BrokenCheckpointError, match="weights: "):
        ClapEncoder.load(str(broken))


@pytest.mark.parametrize(
    ("values", "finding"),
    [({"feature_size": 32}, "mel bands: 32"), ({"max_length_s": 20}, "mel frames: .* 2001")],
)
def test_a_feature_extractor_that_does_not_fit_is_refused(
    broken: Path, values: dict[str, int], finding: str
) -> None:
    edit_json(broken / "preprocessor_config.json", **values)
    with pytest.raises(BrokenCheckpointError, match=finding):
        ClapEncoder.load(str(broken))


@pytest.mark.parametrize(
    ("pattern", "finding"), [("prep*", "feature extractor: "), ("[tvm]*[rset].*", "tokenizer: ")]
)
def test_a_missing_part_is_named(broken: Path, pattern: str, finding: str) -> None:
    for path in broken.glob(pattern):
        if path.suffix in {".json", ".txt"}:
            path.unlink()
    with pytest.raises(BrokenCheckpointError, match=finding):
        ClapEncoder.load(str(broken))


def test_another_model_is_refused_by_its_type(broken: Path) -> None:
    edit_json(broken / "config.json", model_type="bert")
    with pytest.raises(BrokenCheckpointError, match="'bert'"):
        ClapEncoder.load(str(broken))


# --- no checkpoint ----------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no such folder") as caught:
        ClapEncoder.load(str(tmp_path / "nowhere"))
    assert "compact" in caught.value.remedy


def test_a_file_or_an_empty_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        ClapEncoder.load(str(tmp_path))
    (tmp_path / "weights").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match="this is a file"):
        ClapEncoder.load(str(tmp_path / "weights"))


def test_a_hub_name_that_cannot_be_reached_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Port 9 of this machine answers at once that nobody listens.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelNotFoundError, match="the hub did not give it"):
        ClapEncoder.load("nobody/no-such-clap")
