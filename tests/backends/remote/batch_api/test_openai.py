"""What OpenAI's batches say, by the SDK."""

from __future__ import annotations

import json

import pytest

from fastgen.backends.remote.batch_api.openai import OpenAIBatches
from fastgen.backends.remote.responses import ProviderError
from fastgen.output.parcels import Parcel
from fastgen.resolver import resolve
from tests.simulator import Simulator
from tests.simulator.batches import Batches

pytest.importorskip("openai")
CHAT = "/chat/completions"


@pytest.fixture(scope="module")
def sim():
    with Simulator() as made:
        yield made


@pytest.fixture
def service(sim, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    sim.batches = Batches()
    settings = resolve("caption", None, out=tmp_path, backend="openai", base_url=sim.openai_url, batch_api=True)
    made = OpenAIBatches(settings)
    made.open()
    yield made
    made.close()


def submitted(service, tmp_path, name="n" * 32, rows=2, endpoint=CHAT) -> Parcel:
    body = json.dumps({"model": "gpt-6-luna", "messages": [{"role": "user", "content": "what?"}]}).encode()
    file = tmp_path / "requests.jsonl"
    file.write_bytes(b"".join(service.line(f"k{row}", endpoint, body) + b"\n" for row in range(rows)))
    parcel = Parcel(name, "", CHAT, rows)
    parcel.file = service.upload(parcel, file)
    parcel.id = service.submit(parcel)
    return parcel


def answers(service, tmp_path, look) -> dict:
    found = {}
    for file in look.files:
        service.fetch(file, tmp_path / "results")
        found |= {one.key: one for one in map(service.read, (tmp_path / "results").read_bytes().splitlines())}
    return found


def test_the_paths_that_a_batch_takes(service):
    base = service._http.base_url
    assert [service.path_of(base + path) for path in (CHAT, "/images/edits", "/images/variations", "/models")] == [
        *(CHAT, "/images/edits"),
        *("", ""),
    ]
    assert service.path_of(f"{base}{CHAT}?api-version=1") == CHAT and not service.path_of(f"http://other{CHAT}")


def test_a_line_has_no_line_breaks(service):
    assert service.line("k", CHAT, b'{\n"a": 1}') == (
        b'{"custom_id":"k","method":"POST","url":"/v1/chat/completions","body":{"a":1}}'
    )


def test_a_batch_from_submission_to_its_answers(service, tmp_path):
    look = service.look(submitted(service, tmp_path))
    assert (look.ended, look.done, look.failed, len(look.files)) == (True, 2, 0, 1)
    found = answers(service, tmp_path, look)
    assert {key: one.status for key, one in found.items()} == {"k0": 200, "k1": 200}
    assert json.loads(bytes(found["k0"].body))["object"] == "chat.completion"


def test_a_batch_under_way(service, sim, tmp_path):
    sim.batches = Batches(seconds=3600)
    assert not service.look(submitted(service, tmp_path)).ended


@pytest.mark.parametrize("how", ["expired", "cancelled"])
def test_a_batch_that_ends_half_done(service, sim, tmp_path, how):
    sim.batches = Batches(expire=[0.5]) if how == "expired" else Batches(seconds=3600)
    parcel = submitted(service, tmp_path)
    if how == "cancelled":
        service._client.batches.cancel(parcel.id)
    look = service.look(parcel)
    assert look.ended and look.otherwise == (
        "unavailable",
        f"the batch {'was ' * (how != 'expired')}{how} before its turn",
    )
    found = answers(service, tmp_path, look)
    assert (found["k1"].kind, found["k1"].status) == ("unavailable", 0) and f"batch_{how}" in found["k1"].why
    assert found["k0"].status == (200 if how == "expired" else 0)


def test_a_batch_that_is_refused_as_a_whole(service, tmp_path):
    look = service.look(submitted(service, tmp_path, endpoint="/images/edits"))
    assert look.ended and look.otherwise[0] == "input" and "mismatched_endpoint" in look.otherwise[1]


def test_a_batch_for_which_there_is_no_room(service, sim, tmp_path):
    sim.batches = Batches(refuse=["token_limit_exceeded"])
    look = service.look(submitted(service, tmp_path))
    assert look.is_full and look.otherwise[0] == "rate_limited"


def test_a_batch_is_found_by_our_name_among_many(service, sim, tmp_path):
    wanted = submitted(service, tmp_path, "a" * 32)
    for number in range(120):  # more than a page
        sim.batches.create("openai", f"other-{number}", CHAT, "file-0", [])
    assert service.find(wanted) == wanted.id
    assert service.find(Parcel("b" * 32, "", CHAT, 1)) == ""


def test_a_batch_that_was_refused_is_not_found(service, sim, tmp_path):
    sim.batches = Batches(refuse=["token_limit_exceeded"])
    assert service.find(submitted(service, tmp_path)) == ""


def test_what_the_service_refuses_has_its_kind(service, tmp_path):
    with pytest.raises(ProviderError) as told:
        service.submit(Parcel("n", "", CHAT, 1, file="file-none"))
    assert told.value.kind == "gone" and "No such File" in str(told.value)
    with pytest.raises(ProviderError, match="404"):
        service.fetch("file-none", tmp_path / "results")


def test_a_line_that_is_none_is_no_answer(service):
    assert service.read(b"<html>") is None and service.read(b'{"id": 1}') is None
