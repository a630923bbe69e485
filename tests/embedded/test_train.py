"""The training scripts: exact where they must be, resumable, and whole from end to end in a few steps."""

from __future__ import annotations

import copy
import os
import random
import subprocess
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from fastgen.config.model_cards import read_card
from fastgen.embedded.scenes import CANVASES, Edit, describe, parse, random_edit, random_scene
from fastgen.embedded.train import dialogues, flow, flux, flux_folder, forward, latents, text, vae, vlm
from fastgen.embedded.train.loop import Trainer, rng_of
from fastgen.embedded.train.muon import orthogonal
from fastgen.embedded.train.words import WORDS, clip_tokenizer, t5_tokenizer, twins


def toy(folder, steps: int) -> Trainer:
    """Learns to halve its input."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    return Trainer(folder, {"toy": model}, lambda n, w: n == "toy.0.weight", 1e-2, steps)


def toy_loss(trainer: Trainer):
    def loss(step: int):
        _, generator = rng_of(3, step)
        x = torch.randn(16, 8, generator=generator)
        return (trainer.modules["toy"](x) - x / 2).pow(2).mean(), {}

    return loss


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    whole = toy(tmp_path / "whole", 40)
    whole.train(toy_loss(whole))
    part = toy(tmp_path / "part", 40)
    monkeypatch.setattr("fastgen.embedded.train.loop.SAVE_EVERY_S", -1)  # after every step

    def killed(step: int):
        if step == 23:
            raise KeyboardInterrupt
        return toy_loss(part)(step)

    with pytest.raises(KeyboardInterrupt):
        part.train(killed)
    resumed = toy(tmp_path / "part", 40)
    assert resumed.step == 23
    resumed.train(toy_loss(resumed))
    for name, weight in whole.averaged.items():
        assert torch.equal(weight, resumed.averaged[name])
    assert all(torch.equal(a, b) for a, b in zip(whole.named.values(), resumed.named.values(), strict=True))


def test_training_learns_and_the_average_can_be_looked_at(tmp_path):
    trainer = toy(tmp_path, 400)
    first, last = float(toy_loss(trainer)(0)[0]), None
    trainer.train(toy_loss(trainer))
    with trainer.averages():
        last = float(toy_loss(trainer)(0)[0])
    assert last < first / 20


def test_orthogonal_makes_singular_values_alike():
    for shape in ((3, 16, 48), (2, 48, 16)):
        matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonal(matrices))
        assert values.min() > 0.5 and values.max() < 1.4


def test_every_word_of_the_grammar_is_one_token():
    clip, vocab = clip_tokenizer()
    t5 = t5_tokenizer()
    assert len(clip) == len(vocab)
    assert [w for w in WORDS if len(clip.tokenize(w)) != 1 or len(t5.tokenize(w)) != 1] == []
    assert all(a != b and t5.unk_token_id not in (a, b) for a, b in twins(t5))
    rng = random.Random(0)
    for _ in range(200):
        scene = random_scene(rng, rng.choice(CANVASES))
        for written in (describe(scene, rng).text, random_edit(scene, rng)[1].text):
            pieces = t5.tokenize(written)
            assert all(piece.strip("\u2581").lower() in {*WORDS, ".", ","} for piece in pieces), pieces


def test_no_padding_changes_a_word_to_t5():
    torch.manual_seed(0)
    encoders = text.make()
    with torch.no_grad():
        short, long = (encoders(["a red circle on a blue background"], length)[1][0] for length in (40, 512))
    assert torch.allclose(short[:20], long[:20], atol=1e-5)
    assert torch.allclose(short[30], long[200], atol=1e-5), "far padding is one and the same"


def test_labels_say_what_the_text_says():
    rng = random.Random(0)
    torch.manual_seed(0)
    encoders = text.make()
    for _ in range(100):
        said, meaning = text.random_text(encoders, rng)
        spans, kinds, colors = text._labels(said, meaning)
        assert spans and len(colors) == len(kinds) + 1
        for start, end, labels in spans:
            part = said.text[start:end]
            color = labels["color"]
            assert color == len(text._COLORS) or text._COLORS[color] in part or isinstance(meaning, Edit)
        if not isinstance(meaning, Edit):
            assert meaning == parse(said.text)
            assert text._class(text._COLORS, meaning.background) == colors[-1]


def untrained():
    """The transformer with weights that all matter: as it is made, its blocks do nothing."""
    torch.manual_seed(0)
    model = flux.make()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, weight.shape[1] ** -0.5)
    return model


@pytest.mark.parametrize("edit", [False, True])
def test_the_training_forward_is_that_of_diffusers(edit):
    """All canvases in one batch, filled up and masked, one padding token standing for many: as one by one."""
    model = untrained()
    usual = copy.deepcopy(model.attn_processors)
    length = text.EDIT_LENGTH if edit else text.LENGTH
    count, far = len(CANVASES), torch.tensor([1.0, 1, 31, 1, 100])
    x = torch.randn(count, latents.TOKENS, 64)
    reference = torch.randn(count, latents.TOKENS, 64) if edit else None
    words, pooled = torch.randn(count, length, text.WIDTH), torch.randn(count, text.WIDTH)
    sigma, guidance = torch.rand(count), 1 + 4 * torch.rand(count)
    model.set_attn_processor(forward.PerSample())
    where = forward.Positions(model, length, edit).of(list(range(count)), far)
    with torch.no_grad():
        ours, _ = forward.Velocity(model)(x, reference, words, pooled, sigma, guidance, *where)
    model.set_attn_processor(dict(usual))
    for i, (width, height) in enumerate(CANVASES):
        tokens = width * height // 256
        grid = torch.cartesian_prod(torch.zeros(1), torch.arange(height / 16), torch.arange(width / 16))
        ids, hidden = grid, x[i : i + 1, :tokens]
        if edit:
            ids = torch.cat([grid, grid + torch.tensor([1.0, 0, 0])])
            hidden = torch.cat([hidden, reference[i : i + 1, :tokens]], 1)
        padded = torch.cat([words[i : i + 1], words[i : i + 1, -1:].expand(1, int(far[i]) - 1, -1)], 1)
        with torch.no_grad():
            theirs = model(
                hidden_states=hidden,
                encoder_hidden_states=padded,
                pooled_projections=pooled[i : i + 1],
                timestep=sigma[i : i + 1],
                guidance=guidance[i : i + 1],
                img_ids=ids,
                txt_ids=torch.zeros(padded.shape[1], 3),
            ).sample[:, :tokens]
        assert torch.allclose(ours[i : i + 1, :tokens], theirs, atol=2e-5)


@pytest.mark.parametrize("edit", [False, True])
def test_the_tokens_that_stay_count_for_those_left_out(edit):
    """Exactly so where the ground's tokens differ in nothing: neither in what they hold nor by their position."""
    model = untrained()
    model.set_attn_processor(forward.PerSample())
    length, count = 12, len(CANVASES)
    ground = torch.randn(count, 1, 64).expand(-1, latents.TOKENS, -1)
    reference = torch.randn(count, 1, 64).expand(-1, latents.TOKENS, -1) if edit else None
    words, pooled = torch.randn(count, length, text.WIDTH), torch.randn(count, text.WIDTH)
    sigma, guidance = torch.rand(count), 1 + 4 * torch.rand(count)
    positions = forward.Positions(model, length, edit)
    chosen = torch.arange(20).expand(count, -1)
    there = torch.tensor([w * h // 256 for w, h in CANVASES])[:, None]
    made = []
    for kept, counts in ((None, None), (chosen, (there / 20).expand(-1, 20))):
        cos, sin, mask = positions.of(list(range(count)), torch.ones(count), kept, counts)
        where = torch.ones_like(cos), torch.zeros_like(sin), mask
        parts = [t if t is None or kept is None else t[:, :20] for t in (ground, reference)]
        with torch.no_grad():
            made.append(forward.Velocity(model)(*parts, words, pooled, sigma, guidance, *where)[0][:, :20])
    assert torch.allclose(*made, atol=2e-5)


def test_questions_have_true_answers():
    rng = random.Random(0)
    for _ in range(500):
        scene = random_scene(rng)
        asked, answer = dialogues.question(scene, rng)
        kinds = [shape.kind for shape in scene.shapes]
        if asked.startswith("Is there a") and answer == "no":
            words = asked.rstrip("?").split()
            assert not any(s.kind == words[-1] and (len(words) == 4 or s.color == words[-2]) for s in scene.shapes)
        if asked.startswith("How many"):
            assert answer == str(len(kinds))
        if answer.startswith("there is no"):
            assert answer.split()[-1] not in kinds
        if "background" in asked and asked.startswith("What"):
            assert answer == scene.background


def test_without_the_vae_the_next_step_is_named(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "fastgen.embedded.train", "flux", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1 and "train the VAE first" in result.stderr


@pytest.mark.slow
def test_a_few_steps_of_everything_make_whole_models(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(latents, "PART", 40)
    monkeypatch.setattr(flow, "BATCH", 4)
    monkeypatch.setattr(flux, "samples", lambda model, sheet: "")
    vae.train(tmp_path / "vae", tmp_path / "vae" / "model", 4, 1)
    flux.train(
        tmp_path / "flux",
        tmp_path / "vae" / "model",
        tmp_path / "tiny-flux",
        8,
        1,
        pairs=40,
        text_steps=3,
        compiled=False,
    )
    card = read_card("new", tmp_path / "tiny-flux")
    assert card.defaults == flux_folder.DEFAULTS
    vlm.train(tmp_path / "vlm", tmp_path / "tiny-vlm", 3, 1, sight_steps=2)
    assert (tmp_path / "tiny-vlm" / "model.safetensors").stat().st_size < 8e6
    capsys.readouterr()
    flux.train(tmp_path / "flux", tmp_path / "vae" / "model", tmp_path / "tiny-flux", 8, 1, pairs=40, compiled=False)
    assert "continues from step 8" in capsys.readouterr().out
    flux.train(
        tmp_path / "more",
        tmp_path / "nothing",
        tmp_path / "again",
        3,
        1,
        pairs=40,
        compiled=False,
        start=tmp_path / "tiny-flux",
    )
    assert read_card("again", tmp_path / "again").defaults == flux_folder.DEFAULTS
