"""What counts as a caption, as a refusal and as neither; what statuses and headers mean."""

from __future__ import annotations

import json
import time
from email.utils import formatdate

import pytest

from fastgen.backends.remote import answer_text, responses
from fastgen.backends.remote.responses import ProviderError, of_status, seconds_of, shorten


def text_of(*given: str | None) -> str:
    return answer_text.text_of(*given).text


REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I’m sorry, I can’t assist with that request.",
    "Sorry, I cannot describe people in this picture.",
    "I am very sorry, but I am unable to provide a caption.",
    "I can't identify who this is.",
    "I cannot assist with this.",
    "I won't describe this image.",
    "I'm not able to help with identifying people.",
    "As an AI language model, I cannot see images.",
    "I'm unable to view images.",
    "I don't see any image attached. Could you upload it?",
    "Unfortunately, I can't describe this image.",
    "Your request was rejected by the safety system.",
    "The content was flagged.",
    "We're sorry, we cannot process this image.",
)
ERRORS = (
    "Error code: 500 - the server had an error",
    "Error: rate limit reached",
)
CAPTIONS = (
    "A sign on a shop door that says sorry we are closed.",
    "Sorry board game box with four coloured pawns on a table.",
    "An error message on a computer screen reads 'error code 404'.",
    "Error message on a blue screen, with a sad face above it.",
    "The image shows a red bus; the driver cannot be seen.",
    "I can see a dog on a beach.",
    "I cannot believe it's not butter: a tub of margarine stands on a table.",
    "A woman is unable to open a jar.",
    "This image is a photograph of a cat asleep on a sofa.",
    "The request is written on a note on the fridge: buy milk.",
    "A protester holds a banner that reads 'I can't breathe'.",
    "As an airplane takes off, birds scatter over the runway.",
    "Afraid of the thunder, a small dog hides and can't be coaxed out from under the bed.",
    "An apology letter: 'I'm sorry, I can't come home', written in blue ink.",
    "Je suis désolé, mais non: a handwritten note.",
)


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals_are_caught(text):
    with pytest.raises(ProviderError) as caught:
        text_of(text, "stop", None)
    assert caught.value.kind == "refused" and text[:20] in str(caught.value)


@pytest.mark.parametrize("text", ERRORS)
def test_texts_of_errors_are_tried_again(text):
    with pytest.raises(ProviderError) as caught:
        text_of(text, "stop", None)
    assert caught.value.kind == "transient" and text in str(caught.value) and caught.value.answer == text


@pytest.mark.parametrize("text", CAPTIONS)
def test_honest_captions_pass(text):
    assert text_of(f" {text}\n", "stop", None) == text


SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


@pytest.mark.parametrize(
    "content, finish, refusal, schema, kind",
    [
        (None, "stop", "No.", "", "refused"),
        (None, "content_filter", None, "", "refused"),
        ("A cat and", "length", None, "", "truncated"),
        ("", "length", None, "", "truncated"),
        (None, "stop", None, "", "empty"),
        (" \n", "stop", None, "", "empty"),
        (["a"], "stop", None, "", "unsupported"),
        ("A cat and", "abort", None, "", "transient"),
        ("A cat and", "error", None, "", "transient"),
        ("A cat and a cat and a cat and", "repetition", None, "", "truncated"),
        ("A cat and", "MAX_TOKENS", None, "", "truncated"),
        ("A c", "SAFETY", None, "", "refused"),
        ("half of a \ud83d", "stop", None, "", "malformed"),
        ('{"n": 1, "t": "\\ud83d"}', "stop", None, SCHEMA, "malformed"),
        ('{"n": 1, "t": NaN}', "stop", None, SCHEMA, "malformed"),
        ('{"n": 1, "t": 1e999}', "stop", None, SCHEMA, "malformed"),
        ('{"error": "I cannot help with that."}', "stop", None, SCHEMA, "refused"),
        ('{"n": 1, "t": ["a dog", "I\'m sorry, but I can\'t help with that."]}', "stop", None, SCHEMA, "refused"),
        ("no JSON", "stop", None, SCHEMA, "malformed"),
        ('{"n": "x"}', "stop", None, SCHEMA, "malformed"),
        ('{"n": 1', "stop", None, SCHEMA, "malformed"),
        ("I'm sorry, but I can't help with that.", "stop", None, SCHEMA, "refused"),
    ],
)
def test_what_is_no_text(content, finish, refusal, schema, kind):
    with pytest.raises(ProviderError) as caught:
        text_of(content, finish, refusal, schema)
    assert caught.value.kind == kind


def test_an_answer_of_brackets_is_malformed():
    with pytest.raises(ProviderError, match="is not JSON") as caught:
        text_of("[" * 100_000, "stop", None, '{"type": "array"}')
    assert caught.value.kind == "malformed"


def test_json_under_a_schema():
    assert text_of('{"n":  1}', "stop", None, SCHEMA) == '{"n": 1}'
    said = '{"n": 1, "says": "I cannot help you", "caption": "A parrot beside a sign, on a perch."}'
    assert text_of(said, "stop", None, SCHEMA) == said


TOO_LARGE = (
    "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 45123. The "
    "input or output tokens must be reduced in order to run successfully. Visit OpenAI's pages to learn more."
)


@pytest.mark.parametrize(
    "status, code, message, wait, kind",
    [
        (400, "moderation_blocked", "", 0, "refused"),
        (400, "", "Your request was rejected by the safety system.", 0, "refused"),
        (400, "invalid_value", "size", 0, "input"),
        (400, "", "Your request was rejected as a result of our safety system.", 0, "refused"),
        (400, "data_inspection_failed", "Input data may contain inappropriate content.", 0, "refused"),
        (403, "", 'Your input was flagged for "violence"', 0, "refused"),
        (429, "rate_limit_exceeded", TOO_LARGE, 0, "unsupported"),
        (413, "rate_limit_exceeded", TOO_LARGE.replace("OpenAI", "Groq"), 0, "unsupported"),
        (429, "", "Limit 30,000, Used 1,200, Requested 45,123. Please try again in 2s.", 0, "unsupported"),
        (
            429,
            "",
            "Rate limit reached on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000.",
            0,
            "rate_limited",
        ),
        (
            429,
            "",
            "Rate limit reached on requests per min. Limit: 3 / min. Please try again in 20s.",
            0,
            "rate_limited",
        ),
        (413, "", "Request Entity Too Large", 0, "input"),
        (401, "", "", 0, "unauthorized"),
        (407, "", "", 0, "unauthorized"),
        (301, "", "", 0, "gone"),
        (405, "", "Method Not Allowed", 0, "gone"),
        (410, "", "", 0, "gone"),
        (425, "", "", 0, "unavailable"),
        (402, "", "Insufficient credits", 0, "quota"),
        (403, "", "", 0, "unauthorized"),
        (404, "model_not_found", "", 0, "gone"),
        (400, "model_deprecated", "", 0, "gone"),
        (408, "", "", 0, "unavailable"),
        (409, "", "", 0, "unavailable"),
        (413, "", "too large", 0, "input"),
        (422, "", "", 0, "input"),
        (429, "rate_limit_exceeded", "per min", 20, "rate_limited"),
        (429, "rate_limit_exceeded", "requests per day (RPD)", 0, "quota"),
        (429, "rate_limit_exceeded", TOO_LARGE, 0, "unsupported"),
        (429, "rate_limit_exceeded", TOO_LARGE.replace("minute", "day").replace("TPM", "TPD"), 20, "unsupported"),
        (429, "insufficient_quota", "", 0, "quota"),
        (429, "", "slow down", 43200, "quota"),
        (500, "server_error", "", 0, "unavailable"),
        (529, "", "overloaded", 5, "unavailable"),
    ],
)
def test_statuses(status, code, message, wait, kind):
    found = of_status(status, code, message, wait)
    assert found.kind == kind and str(status) in str(found)
    assert found.retry_after == (wait if kind in ("rate_limited", "unavailable") else 0)
    assert responses.OUTCOMES.get(kind, "neither") == {"rate_limited": "slow down", "unavailable": "down"}.get(
        kind, "neither"
    )


def test_an_outage_is_waited_for_an_hour_at_most():
    assert of_status(503, "", "", 9e9).retry_after == responses.PATIENCE_S == 3600


def test_a_gateway_that_gave_up_may_have_been_billed_for():
    assert [of_status(status, "", "", at_most=0.2).cost for status in (400, 429, 500, 503, 504, 524)] == [
        0,
        0,
        0,
        0,
        0.2,
        0.2,
    ]


def test_how_long_a_service_asks_to_wait():
    cases = {
        ("2", None): 2,
        ("2", "1500"): 1.5,
        (None, None): 0,
        ("soon", None): 0,
        ("-1", None): 0,
        ("nan", None): 0,
        ("3", "soon"): 3,
        ("inf", None): 0,
        ("1e9", None): 86_400,
    }
    assert {given: seconds_of(*given) for given in cases} == cases
    assert 28 < seconds_of(formatdate(time.time() + 30, usegmt=True)) <= 30
    assert seconds_of(formatdate(time.time() - 30, usegmt=True)) == 0
    assert seconds_of("Fri, 31 Dec 9999 23:59:59 GMT") == 86_400, "no clock waits that long"


def test_messages_are_short_and_hold_no_keys_or_pictures():
    said = shorten("at sk-proj-abcdef123456 and AIzaSyABCDEFGH\nBearer abcdefgh data:image/png;base64," + "A" * 9999)
    assert said == "at sk-... and AIza... Bearer ... data:..."
    assert len(shorten("a" * 999)) == 303
    assert shorten("half of a \ud83d").encode(), "so that it can be told"
