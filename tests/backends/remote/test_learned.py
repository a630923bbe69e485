"""What servers refuse of every request is learned once, whatever form the complaint has."""

from __future__ import annotations

import json
import threading

import pytest

from fastgen.backends.remote.learned import Learned
from fastgen.backends.remote.openai_answers import MAY_GO, Complaint

MESSAGES = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [{"type": "text", "text": "What?"}]},
]
WORDS = {"model": "m", "messages": MESSAGES, "max_tokens": 9, "temperature": 0.0, "seed": 1}


def learned() -> Learned:
    return Learned("m", "max_tokens", MAY_GO)


@pytest.mark.parametrize(
    "complaint, gone",
    [
        (Complaint(422, "", "", "{'detail': [{'type': 'extra_forbidden', 'loc': ['body', 'seed']}]}"), "seed"),
        (Complaint(400, "", "", "property 'seed' is unsupported"), "seed"),
        (Complaint(400, "unknown_parameter", "seed", "Unknown parameter"), "seed"),
        (Complaint(400, "InvalidParameter", "", "参数 seed 不支持"), "seed"),
        (Complaint(400, "", "", "Seed is not enabled for this model"), "seed"),
        (Complaint(400, "", "", "Unrecognized request argument supplied: seed"), "seed"),
        (Complaint(400, "unsupported_value", "temperature", "Only the default (1) value is supported."), "temperature"),
        (Complaint(422, "", "", "temperature: Extra inputs are not permitted"), "temperature"),
    ],
)
def test_a_refused_parameter_is_left_out(complaint, gone):
    one = learned()
    assert one.learn(complaint, one.fitted(WORDS))
    assert one.fitted(WORDS).keys() == WORDS.keys() - {gone}
    assert one.notes(WORDS) == ([f"m does not support {gone}; it was left out"], [gone])


@pytest.mark.parametrize(
    "said",
    [
        "max_tokens is not supported with this model. Use max_completion_tokens instead.",
        "Unsupported parameter: 'max_tokens'",
    ],
)
def test_the_limit_has_another_name(said):
    one = learned()
    assert one.learn(Complaint(400, "", "", said), one.fitted(WORDS))
    sent = one.fitted(WORDS)
    assert sent["max_completion_tokens"] == 9 and "max_tokens" not in sent and one.notes(WORDS) == ([], [])
    assert not one.learn(Complaint(400, "", "", "max_completion_tokens is unsupported"), sent), "there is no third name"


@pytest.mark.parametrize(
    "said",
    [
        "System role not supported",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "'messages[0].role' does not support 'system' with this model.",
        "Developer instruction is not enabled for this model",
        "only user and assistant roles are supported",
    ],
)
def test_without_system_role_its_text_begins_the_first_turn(said):
    one = learned()
    assert one.learn(Complaint(400, "", "", said), one.fitted(WORDS))
    texts = [{"type": "text", "text": "Be short."}, {"type": "text", "text": "What?"}]
    assert one.fitted(WORDS)["messages"] == [{"role": "user", "content": texts}]
    assert "no system role" in one.notes(WORDS)[0][0]
    plain = [MESSAGES[0], {"role": "user", "content": "What?"}]
    assert one.fitted({"messages": plain})["messages"] == [{"role": "user", "content": "Be short.\n\nWhat?"}]
    assert not one.learn(Complaint(400, "", "", said), one.fitted(WORDS)), "it does not help"


def test_turns_of_one_role_are_joined_where_roles_must_alternate():
    one, turns = learned(), [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert one.learn(Complaint(400, "", "", "Conversation roles must alternate"), {"messages": turns})
    (joined,) = one.fitted({"messages": turns})["messages"]
    assert [part["text"] for part in joined["content"]] == ["a", "b"]


def test_a_schema_that_the_grammar_lacks_is_sent_simpler():
    one = learned()
    schema = {"type": "object", "properties": {"format": {"type": "array", "uniqueItems": True, "maxItems": 3}}}
    words = {"response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}}
    said = "The provided JSON schema contains features not supported by xgrammar."
    assert one.learn(Complaint(400, "", "", said), words)
    sent = one.fitted(words)["response_format"]["json_schema"]["schema"]
    assert sent == {"type": "object", "properties": {"format": {"type": "array", "maxItems": 3}}}
    assert "simpler" in one.notes(words)[0][0]
    assert one.learn(Complaint(400, "", "", said), words | {"messages": MESSAGES}), "sent before that was known"
    assert one.fitted(words)["response_format"]["json_schema"]["schema"] == sent


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
ASKS = WORDS | {"response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}}}
SAID = f"Answer with JSON that fits this JSON schema, and with nothing else: {json.dumps(SCHEMA)}"


@pytest.mark.parametrize(
    "complaint",
    [
        Complaint(400, "unknown_parameter", "response_format", "Unknown parameter: 'response_format'."),
        Complaint(422, "", "", "[{'type': 'extra_forbidden', 'loc': ['body', 'response_format']}]"),
        Complaint(400, "", "", "This response_format type is unavailable now"),
        Complaint(400, "", "", "Structured output is not supported by this model."),
    ],
)
def test_a_schema_that_a_server_does_not_take_is_said_in_the_prompt(complaint):
    one = Learned("m", "max_tokens", (*MAY_GO, "response_format"))  # it may come from --extra-body too
    assert one.learn(complaint, one.fitted(ASKS))
    sent = one.fitted(ASKS)
    assert "response_format" not in sent and sent["messages"][0] == MESSAGES[0]
    assert [part["text"] for part in sent["messages"][1]["content"]] == ["What?", SAID]
    notes, gone = one.notes(ASKS)
    assert gone == ["response_format"] and "--schema is in the prompt" in notes[0]
    assert one.fitted(WORDS) == WORDS and one.notes(WORDS) == ([], [])
    assert not one.learn(complaint, sent), "there is no other way"
    plain = one.fitted(ASKS | {"messages": [{"role": "user", "content": "What?"}]})
    assert plain["messages"] == [{"role": "user", "content": f"What?\n\n{SAID}"}]


def test_a_schema_that_was_accepted_once_is_not_at_fault():
    one = learned()
    one.accepted(one.fitted(ASKS))
    assert not one.learn(Complaint(400, "", "", "the row fits no grammar"), one.fitted(ASKS))
    assert one.fitted(ASKS) == ASKS


def test_a_server_that_ignores_a_schema_gets_it_in_the_prompt_too():
    one = learned()
    one.answered(is_json=False)
    sent = one.fitted(ASKS)
    assert sent["messages"][1]["content"][-1]["text"] == SAID and "response_format" in sent
    assert "too" in one.notes(ASKS)[0][0]
    another = learned()
    another.answered(is_json=True)
    another.answered(is_json=False)
    assert another.fitted(ASKS) == ASKS, "an accident"


@pytest.mark.parametrize(
    "said", ["image too large", "seed must be an integer", "maximum context length is 4096 tokens", "messages: bad"]
)
def test_other_complaints_are_about_the_row(said):
    one = learned()
    assert not one.learn(Complaint(400, "", "", said), one.fitted(WORDS)) and one.fitted(WORDS) == WORDS


def test_a_few_requests_are_under_way_until_one_is_accepted():
    one = learned()
    assert one._wait_s(0.0) == 0.0
    with one.asking():
        assert one._wait_s(0.0) == 0.25 and one._wait_s(0.25) == 0.0
        one._asking = 4
        assert one._wait_s(0.5) == 4.5 and one._wait_s(5.0) <= 0
        one._asking = 1


def test_the_first_request_is_alone(monkeypatch):
    monkeypatch.setattr("fastgen.backends.remote.learned.ALONE_S", 60.0)
    one, order, inside = learned(), [], threading.Event()

    def second():
        inside.wait()
        with one.asking():
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with one.asking():
        inside.set()
        order.append("first")
        assert not one._is_known
    thread.join()
    assert order == ["first", "second"]
    one.accepted()
    with one.asking(), one.asking():  # then all may
        pass
