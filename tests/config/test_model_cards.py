"""A model folder is checked before anything is loaded; what is missing is named."""

from __future__ import annotations

import json
import shutil

import pytest

from fastgen.config.families import KONTEXT_SIZES
from fastgen.config.model_cards import TINY, read_card, resolve_model
from fastgen.errors import ModelError

FILES = sorted(str(path.relative_to(TINY)) for path in TINY.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(TINY, tmp_path / "model")


def edit_json(path, **changes):
    value = json.loads(path.read_text())
    value.update(changes)
    path.write_text(json.dumps(value))


def test_the_embedded_model_is_whole():
    card, notes = resolve_model("tiny", "edit")
    assert (card.name, card.family, card.grid, card.path) == ("tiny", "flux", 16, str(TINY)) and not notes
    assert card.defaults.edits and card.defaults.steps == 12


@pytest.mark.parametrize("file", [file for file in FILES if file not in ("fastgen.json", "README.md")])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(ModelError, match="Download the model again") as caught:
        read_card("mine", folder)
    part = file.split("/")[0]
    assert "--model mine" in str(caught.value) and part in str(caught.value)


def test_a_missing_folder_is_named(folder):
    shutil.rmtree(folder / "tokenizer_2")
    with pytest.raises(ModelError, match="tokenizer_2"):
        read_card("mine", folder)


def test_a_missing_shard_is_named(folder):
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    (folder / "transformer/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "transformer/part-1.safetensors").touch()
    with pytest.raises(ModelError, match=r"part-2\.safetensors is missing"):
        read_card("mine", folder)


@pytest.mark.parametrize("content", ["", "{", "[1]", '"text"', "{}"])
@pytest.mark.parametrize("file", ["model_index.json", "vae/config.json", "fastgen.json"])
def test_a_damaged_config_is_the_models_fault(folder, file, content):
    (folder / file).write_text(content)
    if (file, content) == ("fastgen.json", "{}"):
        assert read_card("mine", folder).defaults.steps == 28
        return
    with pytest.raises(ModelError, match="--model mine"):
        read_card("mine", folder)


def test_an_unknown_default_is_named(folder):
    (folder / "fastgen.json").write_text('{"step": 3}')
    with pytest.raises(ModelError, match=r"fastgen\.json.*step"):
        read_card("mine", folder)


def test_each_kind_of_flux_has_its_defaults(folder):
    (folder / "fastgen.json").unlink()
    edit_json(folder / "model_index.json", _class_name="FluxPipeline")
    dev = read_card("m", folder).defaults
    assert (dev.steps, dev.guidance, dev.max_sequence_length, dev.edits) == (28, 3.5, 512, False)
    edit_json(folder / "model_index.json", _class_name="FluxKontextPipeline")
    kontext = read_card("m", folder).defaults
    assert kontext.edits and kontext.guidance == 2.5 and kontext.preferred_sizes == KONTEXT_SIZES
    edit_json(folder / "model_index.json", _class_name="FluxPipeline")
    edit_json(folder / "transformer/config.json", guidance_embeds=False)
    schnell = read_card("m", folder).defaults
    assert (schnell.steps, schnell.guidance, schnell.max_sequence_length) == (4, 0.0, 256)


def test_another_family_is_refused(folder):
    edit_json(folder / "model_index.json", _class_name="StableDiffusionPipeline")
    with pytest.raises(ModelError, match=r"StableDiffusionPipeline; supported are FluxPipeline"):
        read_card("m", folder)


def test_images_with_an_alpha_channel_are_refused_by_name(folder):
    edit_json(folder / "vae/config.json", input_channels=4)
    with pytest.raises(ModelError, match="its VAE has 4 channels, such as those of images with an alpha channel"):
        read_card("m", folder)
    edit_json(folder / "model_index.json", _class_name="QwenImageLayeredPipeline")
    with pytest.raises(ModelError, match="QwenImageLayeredPipeline, which takes an image apart into layers"):
        read_card("m", folder)


def test_the_fingerprint_changes_with_the_files(folder):
    before = read_card("m", folder)
    assert read_card("other name", folder).fingerprint == before.fingerprint
    weights = folder / "vae/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert read_card("m", folder).fingerprint != before.fingerprint


def test_a_text_to_image_model_that_edits_is_worth_a_note(folder):
    edit_json(folder / "fastgen.json", edits=False)
    edit_json(folder / "model_index.json", _class_name="FluxPipeline")
    assert resolve_model(str(folder), "t2i")[1] == []
    assert "may ignore" in resolve_model(str(folder), "edit")[1][0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nonesuch", "no such folder"),
        ("./nonesuch", "no such folder"),
        ("/nonesuch", "no such folder"),
        ("a/b/c", "no such folder"),
        ("nobody/no model", "not a hub id"),
        ("x" * 5000, "no such folder"),
        ("nobody/nothing", "not in the local cache"),
    ],
)
def test_unknown_names(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=words):
        resolve_model(name, "t2i")


def test_a_weights_file_is_not_a_model(folder):
    with pytest.raises(ModelError, match="--transformer"):
        resolve_model(str(folder / "vae/diffusion_pytorch_model.safetensors"), "t2i")


def test_a_plan_downloads_nothing_and_says_what_a_run_would(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    from fastgen.config import downloads

    asked = []

    def snapshot(name, allow_patterns, local_files_only=False):
        asked.append(local_files_only)
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        return str(TINY)

    said: list[str] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(downloads, "_print", said.append)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: (_ for _ in ()).throw(OSError("no net")))
    with downloads.none():
        card, (note,) = resolve_model("black-forest-labs/FLUX.1-Kontext-dev", "edit")
    assert asked == [True] and card.path == "" and card.defaults.edits and card.defaults.guidance == 2.5
    assert note.startswith("it would download black-forest-labs/FLUX.1-Kontext-dev: 31.4 GiB to ") and "free" in note
    with downloads.none():
        assert "a size that the hub alone knows" in resolve_model("me/another", "t2i")[1][0]
    assert resolve_model("me/another", "t2i")[0].path == str(TINY) and not said
    file = huggingface_hub.hf_api.RepoSibling("transformer/a.safetensors", size=3 << 30)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: type("Info", (), {"siblings": [file]})())
    resolve_model("me/another", "t2i")
    assert said[0].startswith("downloading me/another: 3.0 GiB to ") and "the same command continues it" in said[0]


@pytest.mark.parametrize(
    ("token", "words"), [(None, "there is no token: run 'hf auth login'"), ("t", "there is a token")]
)
def test_of_a_gated_model_the_page_and_the_token_are_named(monkeypatch, token, words):
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    from fastgen.config import downloads

    said: list[str] = []
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    monkeypatch.setattr(downloads, "_print", said.append)
    assert words in str(downloads.of("black-forest-labs/FLUX.1-dev"))
    assert "token" not in str(downloads.of("Tongyi-MAI/Z-Image-Turbo"))
    info = type("Info", (), {"siblings": [], "gated": "auto"})()
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)

    def refused(name, allow_patterns, local_files_only=False):
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refused)
    with pytest.raises(ModelError, match=r"open https://huggingface\.co/me/gated and accept the licence; ") as error:
        resolve_model("me/gated", "t2i")
    assert "its licence must be accepted at https://huggingface.co/me/gated, and " + words in said[0]
    assert ("an account that has not accepted it" if token else "'hf auth login' with the same account") in str(
        error.value
    )


def test_a_model_in_the_cache_asks_nothing_of_the_hub(monkeypatch):
    import huggingface_hub

    def snapshot(name, allow_patterns, local_files_only=False):
        assert local_files_only
        return str(TINY)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert resolve_model("me/cached", "t2i")[0].path == str(TINY)
