"""Errors that come with status 200 count as what they are."""

from __future__ import annotations

import json

import pytest

from fastgen.backends.remote import responses
from fastgen.backends.remote.chat import Chat, complaint_of
from fastgen.backends.remote.http_client import Answer, Client
from fastgen.backends.remote.responses import ProviderError, of_status
from fastgen.backends.remote.unmasked import unmasked
from tests.backends.remote.conftest import chat_answer

EMPTY_CHOICE = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "error"}


def kind_of(body, worked=True) -> str:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = unmasked(Answer(200, {}, data), worked)
    if answer.status == 200:
        return ""
    complaint = complaint_of(answer, 200)
    assert "200" in complaint.message
    return of_status(complaint.status, complaint.code, complaint.message).kind


@pytest.mark.parametrize(
    "body, kind",
    [
        ({"error": {"code": 429, "message": "Provider returned error"}}, "rate_limited"),
        ({"error": {"code": "429", "message": "slow"}, "choices": []}, "rate_limited"),
        ({"error": {"message": "Rate limit reached for requests", "type": "requests"}}, "rate_limited"),
        ({"error": "You exceeded your current quota"}, "quota"),
        ({"error": {"code": 402, "message": "Insufficient credits"}}, "quota"),
        ({"error": {"code": 503, "message": "overloaded"}, "choices": [EMPTY_CHOICE]}, "unavailable"),
        ({"choices": [{**EMPTY_CHOICE, "error": {"code": 502, "message": "upstream"}}]}, "unavailable"),
        ({"object": "error", "message": "Internal server error", "code": 500}, "unavailable"),
        ({"code": 401, "message": "Invalid API key"}, "unauthorized"),
        ({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "choices": None}, "rate_limited"),
        ({"base_resp": {"status_code": 1027, "status_msg": "output new_sensitive"}, "choices": None}, "refused"),
        ({"code": 400, "message": "输入内容包含敏感信息"}, "refused"),
        ({"success": False, "errors": [{"code": 7003, "message": "model is overloaded"}]}, "unavailable"),
        ({"detail": "Too Many Requests"}, "rate_limited"),
        ({"error": {"message": "The model `x` does not exist", "type": "invalid_request_error"}}, "gone"),
        ({"error": {"code": "content_filter", "message": "blocked by content policy"}}, "refused"),
        ({"error": {"message": "nobody knows"}}, "unavailable"),
        (b"<!DOCTYPE html><title>429 Too Many Requests</title>", "rate_limited"),
        (b"<html><body>502 Bad Gateway</body></html>", "unavailable"),
        (b"<html><h1>Service Unavailable</h1>", "unavailable"),
        (b"<html><title>Welcome</title>", "unavailable"),
        (b'event: error\ndata: {"error": {"code": 429, "message": "slow down"}}\n\n', "rate_limited"),
        (b'data: {"error": {"type": "overloaded_error"}}\n\ndata: [DONE]\n', "unavailable"),
    ],
)
def test_an_error_with_status_200_is_what_it_says(body, kind):
    assert kind_of(body) == kind


def test_a_web_page_from_a_service_that_never_answered_means_a_wrong_address():
    assert kind_of(b"<!doctype html><title>Welcome</title>", worked=False) == "gone"


@pytest.mark.parametrize(
    "body",
    [
        chat_answer(),
        {"choices": [{"message": {"content": "A red house."}}], "error": None},
        {
            "choices": [{"message": {"content": "A red house."}}],
            "error": {"code": 429},
        },  # it has an answer all the same
        {"choices": []},
        {"choices": [{"message": {"content": None, "refusal": "No."}}]},
        {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]},
        {"data": [{"b64_json": "aaaa"}]},
        {"candidates": [{"finishReason": "SAFETY"}]},
        {"promptFeedback": {"blockReason": "SAFETY"}},
        b'data: {"choices": [{"delta": {"content": "A"}}]}\n\ndata: {"error": {"message": "x"}}\n',
        b"{broken",
        b"",
    ],
)
def test_answers_are_left_alone(body):
    assert kind_of(body) == ""


def test_a_chat_reports_it(server):
    """As a failure of its kind, or as a complaint about parameters."""
    says = {"error": {"code": 429, "message": "Provider returned error"}}
    running = server(lambda handler, body: handler.reply(200, json.dumps(says).encode()))
    chat = Chat(Client(running.url, 5.0, 1), "", str)
    with pytest.raises(ProviderError, match="429: Provider returned error") as caught:
        chat.send({}, 0.0)
    assert caught.value.kind == "rate_limited" and responses.OUTCOMES[caught.value.kind] == "slow down"
    says["error"] = {"code": 400, "message": "unknown parameter: seed", "param": "seed"}
    complaint = chat.send({}, 0.0)
    assert (complaint.status, complaint.param) == (400, "seed")


@pytest.mark.parametrize("said", ['{"id": "1", "result": "%s"}', '{"choices": "%s'])
def test_an_answer_that_is_no_chat_stays_with_its_row(server, said):
    """As far as it may be kept in a table."""
    said %= " ".join(["A red house."] * 100)
    running = server(lambda handler, body: handler.reply(200, said.encode()))
    chat = Chat(Client(running.url, 5.0, 1), "", responses.shorten)
    try:
        error = chat.no_chat(chat.send({}, 0.0))
    except ProviderError as caught:
        error = caught
    assert error.kind == "malformed" and error.answer == said and len(str(error)) < 400
