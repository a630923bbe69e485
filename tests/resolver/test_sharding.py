"""A model over several GPUs: which flags ask for it, what the planner says, and what is refused."""

from __future__ import annotations

import pytest

from fastgen.errors import SettingsError
from fastgen.resolver import resolve
from tests.resolver.gpus import gpu, resolved

ADA = [gpu("RTX 4090", 24.0, "8.9", index) for index in range(4)]
LARGE = [gpu("H100", 79.6, "9.0", index) for index in range(2)]
SMALL = [gpu("RTX 4080", 16.0, "8.9", index) for index in range(3)]


@pytest.mark.parametrize(
    "flags", [{"gpus": "0,1,2,3", "gpus_per_replica": 2}, {"gpus": "0+1,2+3"}, {"gpus_per_replica": 2}]
)
@pytest.mark.parametrize("model", ["FLUX.1-dev", "FLUX.1-Kontext-dev"])
def test_two_cards_of_24_gb_hold_it_in_bfloat16(tmp_path, model, flags):
    settings = resolved(tmp_path, model, *ADA, **flags)
    assert [device.name for device in settings.placement.devices] == ["cuda:0+1", "cuda:2+3"]
    chosen, [line] = settings.optimizations, settings.fit.explain()
    assert (chosen.shard.kind, chosen.offload.kind, chosen.quantize.is_plain) == ("shard", "none", True)
    assert line.startswith("bfloat16 split over 2 GPUs needs ") and "of the 23.5 GiB that are free on cuda:0+1" in line
    assert chosen.as_table()["parallel"]["is"] == "shard"
    asked = f"--gpus {flags['gpus']}" if "+" in flags.get("gpus", "") else "--gpus-per-replica 2"
    assert f"parallel shard ({asked})" in chosen.explain()
    assert settings.under_way(settings.placement.devices[0]) == 3
    assert settings.samples_for(1024**2) == 3 * settings.batch_for(1024**2)


def test_three_cards_of_16_gb(tmp_path):
    settings = resolved(tmp_path, "FLUX.1-dev", *SMALL, gpus_per_replica=3)
    assert settings.fit.need.gib <= settings.fit.card.free_gib == 15.68
    assert settings.optimizations.shard.spare_gib[0] > 3


def test_the_planner_proposes_it_where_one_card_is_too_small(tmp_path):
    lines = resolved(tmp_path, "FLUX.1-dev", *ADA[:2]).fit.explain()
    assert lines[-1] == "split over 2 GPUs the model would fit as bfloat16: --gpus-per-replica 2"
    lines = resolved(tmp_path, "FLUX.1-dev", *SMALL).fit.explain()
    assert lines[-1] == "split over 3 GPUs the model would fit as bfloat16: --gpus-per-replica 3"
    assert "split over" not in " ".join(resolved(tmp_path, "FLUX.1-dev", ADA[0]).fit.explain())
    with pytest.raises(SettingsError, match=r"or split over 2 GPUs the model would fit .* --gpus-per-replica 2"):
        resolved(tmp_path, "FLUX.1-dev", *ADA[:2], offload="none", quantize="none")


def test_a_card_that_holds_it_gets_no_proposal(tmp_path):
    large = [gpu("H100", 79.6, "9.0", index) for index in range(2)]
    assert resolved(tmp_path, "FLUX.1-dev", *large).fit.proposal == ""


def test_what_does_not_fit_says_what_each_gpu_would_need(tmp_path):
    with pytest.raises(SettingsError, match=r"bfloat16 split over 2 GPUs needs 1\d\.\d GiB"):
        resolved(tmp_path, "FLUX.1-dev", *SMALL[:2], gpus_per_replica=2)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"offload": "group"}, "--parallel shard: blocks that come and go belong to one GPU"),
        ({"offload": "text"}, "--parallel shard: the devices of a replica hold the whole model"),
        ({"quantize": "8bit"}, "--parallel shard: layers that bitsandbytes quantized cannot move"),
        ({"quantize": "text:4bit"}, "--parallel shard: layers that bitsandbytes quantized cannot move"),
        ({"cuda_graphs": True}, "--parallel shard: a recorded step belongs to one GPU"),
        ({"parallel": "ring"}, "--parallel ring: one of shard, context"),
        ({"gpus_per_replica": 3}, "4 GPUs cannot be divided into groups of 3"),
        ({"gpus_per_replica": None, "parallel": "shard"}, "each replica has one device; add --gpus-per-replica 2"),
    ],
)
def test_what_is_refused(tmp_path, flags, words):
    with pytest.raises(SettingsError, match=words):
        resolved(tmp_path, "FLUX.1-dev", *ADA, **{"gpus_per_replica": 2, **flags})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"offload": "group"}, "--parallel context: each device needs the whole transformer at every step"),
        ({"cuda_graphs": True}, "--parallel context: a recorded step belongs to one GPU"),
        ({"gpus_per_replica": None}, "--parallel context: each replica has one device; add --gpus-per-replica 2"),
    ],
)
def test_what_is_refused_with_context(tmp_path, flags, words):
    with pytest.raises(SettingsError, match=words):
        resolved(tmp_path, "FLUX.1-dev", *LARGE, **{"gpus_per_replica": 2, "parallel": "context", **flags})


def test_with_context_each_gpu_has_the_whole_model(tmp_path):
    settings = resolved(tmp_path, "FLUX.1-dev", *LARGE, gpus_per_replica=2, parallel="context")
    alone = resolved(tmp_path, "FLUX.1-dev", *LARGE)
    chosen, [line] = settings.optimizations, settings.fit.explain()
    assert (chosen.shard.kind, chosen.offload.kind, chosen.quantize.is_plain) == ("context", "none", True)
    assert line.startswith("bfloat16 with everything on each GPU needs ")
    assert settings.fit.need.terms["weights"] == alone.fit.need.terms["weights"]
    assert settings.under_way(settings.placement.devices[0]) == 1
    assert "parallel context (--parallel)" in chosen.explain()
    [note] = [note for note in settings.run.notes if note.startswith("--parallel context")]
    assert "2 replicas of one device (without --gpus-per-replica) make more images per hour" in note


def test_with_context_a_card_that_is_too_small_offloads_or_is_lowered(tmp_path):
    chosen = resolved(tmp_path, "FLUX.1-dev", *ADA, gpus_per_replica=2, parallel="context").optimizations
    assert chosen.shard.kind == "context" and chosen.offload.kind in ("none", "text") and not chosen.quantize.is_plain


def test_heads_must_be_divisible(tmp_path):
    five = [gpu("H100", 79.6, "9.0", index) for index in range(5)]
    with pytest.raises(
        SettingsError, match="24 attention heads cannot be divided among 5 devices; use --gpus-per-replica 4"
    ):
        resolved(tmp_path, "FLUX.1-dev", *five, gpus_per_replica=5, parallel="context")
    with pytest.raises(
        SettingsError, match="4 attention heads cannot be divided among 3 devices; use --gpus-per-replica 2"
    ):
        resolve("t2i", out=tmp_path, model="tiny", gpus="cpu:3", gpus_per_replica=3, parallel="context")


def test_an_api_has_no_gpus_to_split(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(SettingsError, match="only the engine on this machine can split a model"):
        resolve("t2i", out=tmp_path, backend="openai", gpus_per_replica=2)


def test_devices_of_the_cpu(tmp_path):
    settings = resolve("t2i", out=tmp_path, model="tiny", gpus="cpu:4", gpus_per_replica=2)
    assert [device.name for device in settings.placement.devices] == ["cpu:0+1", "cpu:2+3"]
    assert settings.optimizations.shard.kind == "shard" and settings.fit is None
