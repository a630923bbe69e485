"""What Gemini's batches say, by the SDK."""

from __future__ import annotations

import json

import pytest

from fastgen.backends.remote.batch_api.gemini import GeminiBatches
from fastgen.backends.remote.responses import ProviderError
from fastgen.output.parcels import Parcel
from fastgen.resolver import resolve
from tests.simulator import Simulator
from tests.simulator.batches import Batches

pytest.importorskip("google.genai")
MODEL = "models/gemini-3-flash"


@pytest.fixture(scope="module")
def sim():
    with Simulator() as made:
        yield made


@pytest.fixture
def service(sim, tmp_path, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "test-key")
    sim.batches = Batches()
    flags = {"base_url": sim.gemini_url, "model": "gemini-3-flash", "batch_api": True}
    made = GeminiBatches(resolve("caption", None, out=tmp_path, backend="gemini", **flags))
    made.open()
    yield made
    made.close()


def submitted(service, tmp_path, name="n" * 32, text="what?") -> Parcel:
    bodies = [{"contents": [{"role": "user", "parts": [{"text": one}]}]} for one in (text, "who?")]
    file = tmp_path / "requests.jsonl"
    lines = [service.line(f"k{row}", MODEL, json.dumps(body).encode()) for row, body in enumerate(bodies)]
    file.write_bytes(b"\n".join(lines) + b"\n")
    parcel = Parcel(name, "", MODEL, 2)
    parcel.file = service.upload(parcel, file)
    parcel.id = service.submit(parcel)
    return parcel


def answers(service, tmp_path, look) -> dict:
    (file,) = look.files
    service.fetch(file, tmp_path / "results")
    return {one.key: one for one in map(service.read, (tmp_path / "results").read_bytes().splitlines())}


def test_a_batch_is_for_one_model(service):
    url = service._http.base_url
    assert service.path_of(f"{url}/v1/{MODEL}:generateContent") == MODEL
    assert service.path_of(f"{url}/v1beta/{MODEL}:generateContent?alt=json") == MODEL
    assert not service.path_of(f"{url}/v1/{MODEL}:countTokens") and not service.path_of(f"{url}/upload/v1/files")


def test_a_batch_from_submission_to_its_answers(service, tmp_path):
    look = service.look(submitted(service, tmp_path, text="what? fault:error_500"))
    found = answers(service, tmp_path, look)
    assert look.ended and {key: one.status for key, one in found.items()} == {"k0": 500, "k1": 200}
    assert json.loads(bytes(found["k0"].body))["error"]["message"].startswith("An internal error")
    assert "candidates" in json.loads(bytes(found["k1"].body))


def test_a_batch_under_way(service, sim, tmp_path):
    sim.batches = Batches(seconds=3600)
    assert not service.look(submitted(service, tmp_path)).ended


@pytest.mark.parametrize("how", ["expired", "cancelled"])
def test_a_batch_that_ends_early(service, sim, tmp_path, how):
    sim.batches = Batches(expire=[0.5]) if how == "expired" else Batches(seconds=3600)
    parcel = submitted(service, tmp_path)
    if how == "cancelled":
        service._client.batches.cancel(name=parcel.id)
    look = service.look(parcel)
    assert look.ended and look.otherwise == (
        "unavailable",
        f"the batch {'was ' * (how != 'expired')}{how} before its turn",
    )
    assert list(answers(service, tmp_path, look)) == ["k0"] if how == "expired" else look.files == ()


def test_a_batch_is_found_by_its_display_name(service, sim, tmp_path):
    wanted = submitted(service, tmp_path, "a" * 32)
    submitted(service, tmp_path, "b" * 32)
    assert service.find(wanted) == wanted.id and service.find(Parcel("c" * 32, "", MODEL, 1)) == ""


def test_a_file_of_several_chunks_is_uploaded_whole(service, sim, tmp_path):
    file = tmp_path / "large"
    file.write_bytes(b"x" * (9 << 20))
    assert sim.batches.files[service.upload(Parcel("n", "", MODEL, 1), file)] == file.read_bytes()


def test_a_batch_for_which_there_is_no_room_is_refused(service, sim, tmp_path):
    sim.batches = Batches(refuse=["too much"])
    with pytest.raises(ProviderError) as told:
        submitted(service, tmp_path)
    assert told.value.kind == "rate_limited"


@pytest.mark.parametrize(("code", "status"), [(3, 400), (7, 403), (8, 429), (13, 500), (503, 503), (None, 500)])
def test_codes_of_single_requests(service, code, status):
    answer = service.read(json.dumps({"key": "k", "error": {"code": code, "message": "no"}}).encode())
    assert (answer.status, json.loads(bytes(answer.body))["error"]["code"]) == (status, status)


def test_a_line_that_is_none_is_no_answer(service):
    assert service.read(b"<html>") is None and service.read(b'{"response": {}}') is None
