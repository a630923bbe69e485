"""Rows by a Batch API end as they do by direct calls: against the simulator, with the vendors' SDKs."""

from __future__ import annotations

import re
import threading
from contextlib import closing

import pytest
from msgspec.structs import replace
from PIL import Image

from fastgen.backends.registry import create
from fastgen.backends.remote.batch_api.backend import LATER, BatchApi
from fastgen.backends.remote.batch_api.courier import Pace
from fastgen.backends.remote.gemini_api import GeminiBackend
from fastgen.backends.remote.openai_api import OpenAIBackend
from fastgen.errors import ModelError
from fastgen.output import artifacts
from fastgen.output.journal import Journal
from fastgen.output.parcels import at_service
from fastgen.resolver import resolve
from fastgen.types import Batch, Bucket, Done, Failed, ImageParams, Request, TextParams
from tests.simulator import Simulator
from tests.simulator.batches import Batches

pytest.importorskip("openai")
pytest.importorskip("google.genai")
MAKE = {"openai": OpenAIBackend, "gemini": GeminiBackend}
CAPTIONS = {"openai": "gpt-6-luna", "gemini": "gemini-3-flash"}
PRICE = '[{api}.models."{model}"]\ntasks = ["caption"]\nprice = {{ text_in = 2.0, image_in = 2.0, text_out = 8.0 }}\n'


class Fast(Pace):
    first_s = longest_s = search_s = full_s = 0.01
    arrive_s = 0.05


@pytest.fixture(scope="module")
def sim():
    with Simulator() as made:
        yield made


@pytest.fixture
def setting(sim, tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, "test-key")
    prices = tmp_path / "prices.toml"
    prices.write_text("".join(PRICE.format(api=api, model=model) for api, model in CAPTIONS.items()))
    monkeypatch.setenv("FASTGEN_SERVICES", str(prices))
    sim.batches = Batches()
    sim.reset()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "red.png")
    Image.new("L", (64, 48), 255).save(tmp_path / "mask.png")
    return Setting(sim, tmp_path)


class Setting:
    def __init__(self, sim, folder):
        self.sim, self.folder = sim, folder

    def settings(self, api, task, out="out", batch_api=True, **flags):
        url = self.sim.openai_url if api == "openai" else self.sim.gemini_url
        model = CAPTIONS[api] if task == "caption" else "auto"
        for name in (artifacts.PARTIAL, artifacts.IMAGES):
            (self.folder / out / name).mkdir(parents=True, exist_ok=True)
        flags = {"base_url": url, "model": model, **flags}
        return resolve(task, None, out=self.folder / out, backend=api, batch_api=batch_api, **flags)

    def open(self, settings):
        backend = BatchApi(settings, settings.placement.devices[0], MAKE[settings.backend.name], pace=Fast())
        backend.open()
        return closing(backend)

    def row(self, task, text, id="", **about):
        if task == "caption":
            params, words = TextParams(300, 0.0, 5), {"dialogue": (("user", f"<image>{text}"),)}
            about = {"images": (str(self.folder / "red.png"),), **about}
        else:
            turns = about.pop("prompts", (text,))
            params, words = ImageParams(0, 0, 20, 3.5, 5, about.pop("n", 1)), {"prompts": turns}
            about = {"images": (str(self.folder / "red.png"),), **about} if task == "edit" else about
        return Request(
            id or text.replace(" ", "-"), task, words.pop("prompts", ()), params, content=text, **words, **about
        )


def run(backend, requests):
    """All results, as a scheduler gets them: what is not there yet is asked for again."""
    results, left = {}, list(requests)
    while left:
        for request, result in zip(left, backend.run(Batch(Bucket.of(left[0]), tuple(left))), strict=True):
            if result.attempts:
                results[request.id] = result
            else:
                assert result.message == LATER
        left = [request for request in left if request.id not in results]
    return [results[request.id] for request in requests]


def plain(result, cost):
    if isinstance(result, Done):
        return replace(result, receipt="", cost=cost, seconds=0.0)
    return replace(result, receipt="", cost=cost, message=re.sub(r"(req_|created=)\d+", "", result.message))


ROWS = {
    "t2i": [("a cat", {"n": 2}), ("a dog fault:moderation", {}), ("a bird fault:empty_choices", {})],
    "edit": [
        ("make it blue", {}),
        ("one then two", {"prompts": ("one", "two"), "n": 2}),
        ("a mask", {"mask": "mask.png"}),
    ],
    "caption": [
        ("what?", {}),
        ("who? fault:refusal_field", {}),
        ("how? fault:length", {}),
        ("say fault:empty_text", {}),
    ],
}


@pytest.mark.parametrize("api", ["openai", "gemini"])
@pytest.mark.parametrize("task", ["t2i", "edit", "caption"])
def test_results_are_those_of_direct_calls_at_half_the_price(setting, api, task):
    rows = []
    for text, about in ROWS[task]:
        about = dict(about)
        if "mask" in about:
            about["mask"] = str(setting.folder / about["mask"])
        rows.append(setting.row(task, text, **about))
    settings = setting.settings(api, task)
    with setting.open(settings) as backend:
        found = run(backend, rows)
    batched_usd = setting.sim.ledger_usd
    direct = create(setting.settings(api, task, "direct", batch_api=False), settings.placement.devices[0])
    direct.open()
    with closing(direct):
        wanted = [direct.run(Batch(Bucket.of(row), (row,)))[0] for row in rows]
    for one, other in zip(found, wanted, strict=True):
        assert plain(one, 0.0) == plain(other, 0.0)
        assert one.cost == pytest.approx(other.cost / 2, abs=1e-8) and one.receipt
    assert sum(one.cost for one in found) > 0 and not at_service(setting.folder / "out")
    if task != "caption":  # the prices of captions are the test's own
        assert sum(one.cost for one in found) == pytest.approx(batched_usd, abs=1e-8)
        for one in found:
            for path in getattr(one, "paths", ()):
                assert (setting.folder / "out" / path).read_bytes() == (setting.folder / "direct" / path).read_bytes()


def test_copies_and_prompts_go_in_one_batch_and_turns_one_after_the_other(setting):
    rows = [setting.row("t2i", "copies", n=3), setting.row("t2i", "prompts", prompts=("p", "q"))]
    with setting.open(setting.settings("gemini", "t2i")) as backend:
        found = run(backend, rows)
    assert [len(one.paths) for one in found] == [3, 2]
    assert [len(job.lines) for job in setting.sim.batches.jobs.values()] == [5]
    setting.sim.batches = Batches()
    with setting.open(setting.settings("openai", "edit", "edits")) as backend:
        (done,) = run(backend, [setting.row("edit", "turns", prompts=("one", "two", "three"))])
    assert len(done.paths) == 1 and [len(job.lines) for job in setting.sim.batches.jobs.values()] == [1, 1, 1]


def test_a_parameter_that_the_model_refuses_is_learned_once(setting):
    setting.sim.models = frozenset({"o3"})
    rows = [setting.row("caption", f"number {i}") for i in range(3)]
    settings = setting.settings("openai", "caption", model="o3", base_url=setting.sim.openai_url)
    with setting.open(settings) as backend:
        backend._inner.captions.learned._limit = "max_tokens"  # what this model refuses
        found = run(backend, rows)
        again = run(backend, [setting.row("caption", "another")])
    setting.sim.models = frozenset()
    assert [type(one) for one in [*found, *again]] == [Done] * 4
    assert [len(job.lines) for job in setting.sim.batches.jobs.values()] == [3, 3, 1]


def test_another_process_gets_the_answers_of_a_killed_one(setting):
    rows = [setting.row("caption", f"number {i}") for i in range(4)]
    settings = setting.settings("openai", "caption")
    with setting.open(settings) as backend:
        first = run(backend, rows[:3])
    with setting.open(settings) as backend:
        second = run(backend, rows)
    assert [one.receipt for one in second[:3]] == [one.receipt for one in first]
    assert [plain(one, one.cost) for one in second[:3]] == [plain(one, one.cost) for one in first]
    assert [len(job.lines) for job in setting.sim.batches.jobs.values()] == [3, 1]
    assert set(setting.sim.batches.paid.values()) == {1}


def test_a_row_that_failed_is_asked_again_and_the_next_process_finds_that_answer(setting):
    row = setting.row("caption", "a fault:error_500:once")
    settings = setting.settings("openai", "caption")
    with setting.open(settings) as backend:
        (failed,) = run(backend, [row])
        (done,) = run(backend, [row])
    assert (failed.kind, type(done)) == ("unavailable", Done) and failed.receipt != done.receipt
    with setting.open(settings) as backend:
        assert run(backend, [row])[0].receipt == done.receipt, "the outage is over"
    assert len(setting.sim.batches.jobs) == 2


@pytest.mark.parametrize("fault", ["insufficient_quota", "error_500", "rate_limit"])
def test_what_a_service_refused_yesterday_is_asked_again_today(setting, fault):
    row = setting.row("caption", f"a fault:{fault}:2")
    settings = setting.settings("openai", "caption")
    for _ in range(2):
        with setting.open(settings) as backend:
            (failed,) = run(backend, [row])
        assert isinstance(failed, Failed) and not failed.cost
    with setting.open(settings) as backend:
        (done,) = run(backend, [row])
    assert isinstance(done, Done) and len(setting.sim.batches.jobs) == 3


def test_what_was_paid_of_a_row_that_failed_in_an_earlier_run_is_counted(setting):
    row = setting.row("t2i", "a cat", prompts=("a cat", "a dog fault:insufficient_quota:once"))
    settings = setting.settings("openai", "t2i")
    with setting.open(settings) as backend:
        (failed,) = run(backend, [row])
    with setting.open(settings) as backend:
        again, done = (run(backend, [row])[0] for _ in range(2))
    assert (failed.kind, again.kind, type(done)) == ("quota", "transient", Done)
    assert failed.receipt == again.receipt and failed.cost == again.cost > 0
    assert failed.cost + done.cost == pytest.approx(setting.sim.batches.usd, abs=1e-8)


def test_a_failure_in_the_journal_begins_a_new_round(setting):
    row = setting.row("caption", "a fault:refusal_field:once")
    settings = setting.settings("openai", "caption")
    with setting.open(settings) as backend:
        (failed,) = run(backend, [row])
    with closing(Journal(setting.folder / "out" / "journal.jsonl")) as journal:
        journal.append([failed])
    with setting.open(settings) as backend:  # as with --retry-failed
        (done,) = run(backend, [row])
    assert failed.kind == "refused" and isinstance(done, Done)


def test_an_expired_and_an_incomplete_batch_give_what_was_done(setting):
    setting.sim.batches = Batches(expire=[0.5], forget=[0, 1])
    rows = [setting.row("caption", f"number {i}") for i in range(4)]
    settings = setting.settings("openai", "caption")
    with setting.open(settings) as backend:
        first = run(backend, rows)
        assert [type(one) for one in first] == [Done, Done, Failed, Failed]
        assert first[2].kind == "unavailable" and "batch_expired" in first[2].message and not first[2].cost
        second = run(backend, rows[2:])
        assert [type(one) for one in second] == [Failed, Done] and second[0].kind == "unavailable"
        assert isinstance(run(backend, rows[2:3])[0], Done)
    assert set(setting.sim.batches.paid.values()) == {1} and len(setting.sim.batches.paid) == 4


def test_many_rows_go_in_several_batches(setting):
    settings = setting.settings("openai", "caption", batch_rows=2)
    with setting.open(settings) as backend:
        run(backend, [setting.row("caption", f"number {i}") for i in range(5)])
    assert [len(job.lines) for job in setting.sim.batches.jobs.values()] == [2, 2, 1]


def test_a_file_does_not_grow_beyond_the_services_limit(setting):
    settings = setting.settings("openai", "caption")
    with setting.open(settings) as backend:
        backend._service.most_bytes = 1500
        run(backend, [setting.row("caption", f"number {i}") for i in range(4)])
    jobs, files = setting.sim.batches.jobs.values(), setting.sim.batches.files
    assert len(jobs) > 1 and sum(len(job.lines) for job in jobs) == 4
    assert all(len(files[job.file]) <= 1500 for job in jobs)


def test_who_is_told_to_stop_gives_back_what_has_no_answer_yet(setting):
    setting.sim.batches = Batches(seconds=3600)
    settings = setting.settings("openai", "caption")
    with setting.open(settings) as backend:
        told = threading.Timer(0.5, backend.cancel_pending)
        told.start()
        (later,) = backend.run(Batch(Bucket("caption", 0, 0, (0, 0), 1), (setting.row("caption", "slow"),)))
    assert (later.attempts, later.message) == (0, LATER)


def test_rows_whose_answers_are_there_do_not_wait_for_the_others(setting):
    settings = setting.settings("openai", "caption")
    quick, slow = setting.row("caption", "quick"), setting.row("caption", "slow")
    with setting.open(settings) as backend:
        run(backend, [quick])
    setting.sim.batches = Batches(seconds=3600)
    with setting.open(settings) as backend:
        done, later = backend.run(Batch(Bucket("caption", 0, 0, (0, 0), 1), (quick, slow)))
    assert isinstance(done, Done) and later.attempts == 0


@pytest.mark.parametrize("api", ["openai", "gemini"])
def test_a_server_without_a_batch_api_is_refused(setting, monkeypatch, api):
    monkeypatch.setattr("tests.simulator.server.BATCHES", {"openai": NoBatches, "gemini": NoBatches})
    with pytest.raises(ModelError, match=r"--batch-api: http.* has no Batch API .*leave --batch-api out"):
        setting.open(setting.settings(api, "caption"))


class NoBatches:
    @staticmethod
    def takes(request):
        return False
