"""Rows with LoRAs of their own give the images of separate runs with --lora, in one engine, whatever came before."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save_file

from fastgen.backends.diffusion.row_loras import RowLoras
from fastgen.config.model_cards import TINY
from fastgen.config.optimizations import Layout, Offload, Optimizations
from fastgen.errors import InputError
from fastgen.types import Batch, Bucket, Done, Failed
from tests.backends.diffusion.conftest import open_backend
from tests.backends.diffusion.families.alike import Case, draw
from tests.backends.diffusion.families.rows import images_of, rows

BLOCK = "transformer_blocks.0.attn."
D, RANK = 128, 4
SETS = {"none": [], "a": ["a"], "b": ["b:0.5"], "ab": ["a", "b:0.5"], "dora": ["dora"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three LoRAs: two that change the same layer, and a DoRA."""
    folder, dice = tmp_path_factory.mktemp("loras"), torch.Generator().manual_seed(1)

    def pair(name, outputs=D):
        down, up = torch.randn(RANK, D, generator=dice), torch.randn(outputs, RANK, generator=dice)
        return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}

    save_file(pair(f"transformer.{BLOCK}to_q") | pair(f"transformer.{BLOCK}to_out.0"), folder / "a.safetensors")
    b = pair("double_blocks.0.img_attn.qkv", 3 * D) | pair("final_layer.adaLN_modulation.1", 2 * D)
    save_file(b, folder / "b.safetensors")
    dora = pair(f"{BLOCK}to_q") | {f"{BLOCK}to_q.lora_magnitude_vector": torch.rand(D, generator=dice) + 0.5}
    save_file(dora, folder / "dora.safetensors")
    return folder


def flags(folder, names):
    return [f"{folder / name.partition(':')[0]}.safetensors:{name.partition(':')[2] or 1}" for name in names]


def requests(backend, folder, sets):
    made = [
        {"id": f"{name} {seed}", "prompt": "a red circle", "seed": seed, "lora": flags(folder, SETS[name])}
        for name in sets
        for seed in range(2)
    ]
    return rows(backend, folder, [row | {"size": "64x64", "steps": 2} for row in made])


def done(backend, asked):
    """Runs batches of equal LoRA sets side by side, as a worker does. The images by id."""
    batches = {}
    for request in asked:
        batches.setdefault(Bucket.of(request), []).append(request)
    with ThreadPoolExecutor(len(batches)) as pool:
        found = list(pool.map(lambda own: backend.run(Batch(Bucket.of(own[0]), tuple(own))), batches.values()))
    return images_of(backend, [result for results in found for result in results])


@pytest.fixture(scope="module")
def apart(folder, tmp_path_factory):
    """The images of separate runs: one engine for each set, which merges it when it opens."""
    images = {}
    for name, loras in SETS.items():
        backend = open_backend("t2i", tmp_path_factory.mktemp(name), lora=flags(folder, loras))
        plain = [row for row in requests(backend, folder, ["none"])]
        for id, image in done(backend, plain).items():
            images[id.replace("none", name)] = image
        backend.close()
    return images


PLACES = {
    "plain": Optimizations(),
    "fused": Optimizations(layout=Layout(fuse_qkv=True)),
    "parts that take turns": Optimizations(offload=Offload("model")),
}
"""Where the weights are that a LoRA changes."""


@pytest.mark.parametrize("place", PLACES)
def test_one_run_equals_separate_runs(folder, apart, tmp_path, place):
    backend = open_backend("t2i", tmp_path, optimizations=PLACES[place])
    before = {name: value.clone() for name, value in backend.modules.transformer.state_dict().items()}
    for order in (list(SETS), list(reversed(SETS)), ["ab", "none", "dora", "b"]):
        found = done(backend, requests(backend, folder, order))
        assert len(found) == 2 * len(order)
        for id, image in found.items():
            assert abs(image - apart[id]).max() <= 1, id
    assert all(abs(apart[f"{name} 0"] - apart["none 0"]).max() > 4 for name in SETS if name != "none")
    done(backend, requests(backend, folder, ["none"]))
    assert all(torch.equal(value, before[name]) for name, value in backend.modules.transformer.state_dict().items())
    backend.close()


def test_blocks_that_come_and_go(t2i, folder, tmp_path):
    """One at a time, as on a GPU."""
    backend = open_backend("t2i", tmp_path, optimizations=Optimizations(offload=Offload("group")))
    case = Case("a red circle", 2, 3.0, 1, size=(64, 64))
    plain, streamed = RowLoras(t2i.modules, str(TINY)), RowLoras(backend.modules, str(TINY))
    for names in (["a"], [], ["a", "b"], ["dora"]):
        loras = tuple((str(folder / f"{name}.safetensors"), 1.0) for name in names)
        with plain.of(loras), streamed.of(loras):
            assert torch.equal(draw(t2i, [case])[0], draw(backend, [case])[0]), names
    with plain.of(()):
        pass
    backend.close()


def test_a_file_that_is_gone_or_was_changed_fails_its_rows_only(t2i, folder, tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_bytes((folder / "a.safetensors").read_bytes())
    asked = rows(t2i, tmp_path, [{"prompt": "a red circle", "size": "64x64", "steps": 1, "lora": str(path)}])
    (first,) = t2i.run(Batch(Bucket.of(asked[0]), tuple(asked)))
    assert isinstance(first, Done)
    plain = requests(t2i, folder, ["none"])
    assert all(isinstance(result, Done) for result in t2i.run(Batch(Bucket.of(plain[0]), tuple(plain))))
    os.utime(path)  # another change time
    for words in ("was changed during the run", "cannot be used"):
        (failed,) = t2i.run(Batch(Bucket.of(asked[0]), tuple(asked)))
        assert isinstance(failed, Failed) and (failed.kind, failed.field) == ("input", "lora")
        assert words in failed.message
        path.unlink(missing_ok=True)
    assert all(isinstance(result, Done) for result in t2i.run(Batch(Bucket.of(plain[0]), tuple(plain))))


def test_what_a_file_leaves_open_is_said_with_the_row(t2i, tmp_path):
    down, up = torch.ones(RANK, D), torch.zeros(D, RANK)
    name = f"base_model.model.{BLOCK}to_q"
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, tmp_path / "peft.safetensors")
    row = {"prompt": "a red circle", "size": "64x64", "steps": 1}
    ours, other = rows(t2i, tmp_path, [row | {"lora": str(tmp_path / "peft.safetensors")}, row])
    (found,), (plain,) = (t2i.run(Batch(Bucket.of(one), (one,))) for one in (ours, other))
    assert isinstance(found, Done) and len(found.warnings) == 1 and not plain.warnings
    assert "peft.safetensors: no alpha for 1 tensor" in found.warnings[0]


def test_a_set_waits_until_those_before_it_are_done(t2i, folder):
    """In the order in which they ask, so that none waits for ever."""
    row_loras = RowLoras(t2i.modules, str(TINY))
    order, entered, leave = [], threading.Event(), threading.Event()
    a = ((str(folder / "a.safetensors"), 1.0),)

    def use(loras, name, wait=False):
        with row_loras.of(loras):
            order.append(name)
            if wait:
                entered.set()
                assert leave.wait(20)

    threads = [threading.Thread(target=use, args=(a, "first", True))]
    threads[0].start()
    assert entered.wait(20)
    threads.append(threading.Thread(target=use, args=((), "other")))
    threads[1].start()
    while not row_loras._waiting:
        threading.Event().wait(0.001)
    threads.append(threading.Thread(target=use, args=(a, "late")))
    threads[2].start()
    while len(row_loras._waiting) < 2:
        threading.Event().wait(0.001)
    assert order == ["first"]
    leave.set()
    for thread in threads:
        thread.join(20)
    assert order == ["first", "other", "late"]
    with row_loras.of(()):
        pass


def test_an_error_leaves_the_model_as_it_was(t2i, folder, tmp_path):
    weight = t2i.modules.transformer.transformer_blocks[0].attn.to_q.weight
    before, row_loras = weight.clone(), RowLoras(t2i.modules, str(TINY))
    asked = (str(folder / "a.safetensors"), 1.0), (str(tmp_path / "none.safetensors"), 1.0)
    with pytest.raises(InputError, match="cannot be used"), row_loras.of(asked):
        pass
    assert torch.equal(weight, before)
    with row_loras.of(()):
        pass
