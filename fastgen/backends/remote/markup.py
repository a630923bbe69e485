"""Markup of a model's own template in its answer: thoughts, answer boxes, end-of-turn tokens, code fences. Takes it out
of the text, and keeps what was taken out. Does not judge what a text says.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

_NAMES = (
    r"(?:[\w-]+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad|inner_monologue)|"
    r"longcat_think"
)
_OPEN = (
    rf"<\|?(?:{_NAMES})\|?>|◁think▷|\[THINK\]|<\|?(?:begin_of_thought|START_THINKING|thought_start|think_start)\|?>"
    r"|<\|channel\|?>\s*(?:analysis|thought|commentary)\s*(?:<\|message\|>)?|<unused94>(?:thought)?"
)
_CLOSE = (
    rf"<\|?/\|?(?:{_NAMES})\|?>|◁/think▷|\[/THINK\]|<\|?(?:end_of_thought|END_THINKING|thought_end|think_end)\|?>"
    r"|(?:<\|end\|>)?\s*(?:<\|start\|>assistant)?\s*<\|channel\|?>\s*final\s*(?:<\|message\|>)?|<channel\|>|"
    r"<unused95>"
)
_TAG = re.compile(rf"(?P<close>{_CLOSE})|(?P<open>{_OPEN})", re.IGNORECASE)
_QUOTES = "\"'`“”‘’«»「」『』"
_MENTION = re.compile(r"\s*(tags?|tokens?|elements?|blocks?|标签|タグ|태그)\b", re.IGNORECASE)
"""After a tag that is only talked about: "the <think> tag"."""
_BOX = re.compile(r"<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|$)", re.DOTALL)
_ANSWER = re.compile(r"<(answer|conclusion|final_answer|final|response)>(.*?)(?:</\1>|$)", re.IGNORECASE | re.DOTALL)
_WRAP = re.compile(r"<(caption|output|result|description|text)>(.*)</\1>", re.IGNORECASE | re.DOTALL)
_LONE = re.compile(r"</(?:answer|conclusion|final_answer|final|response)>\s*$", re.IGNORECASE)
_RESPONSE = re.compile(r"<\|(?:START|END)_(?:RESPONSE|TEXT|ACTION)\|>|<\|(?:begin|end)_of_(?:solution|answer|box)\|>")
_START = re.compile(
    r"\s*(?:<\|(?:im_start|start|start_header_id|header_start|turn)\|?>\s*\w*\s*(?:<\|(?:end_header_id|header_end|"
    r"message)\|>)?|<start_of_turn>\s*\w*|<\|(?:assistant|begin_of_text|startoftext|bot|CHATBOT_TOKEN|"
    r"START_OF_TURN_TOKEN|begin▁of▁sentence)\|>|<[|｜](?:Assistant|begin▁of▁sentence)[|｜]>|<s>|<bos>|\[/INST\]|"
    r"(?:\n|^)\s*\[\|assistant\|\])\s*",
    re.IGNORECASE,
)
_END = re.compile(
    r"<\|(?:im_end|eot_id|eom_id|endoftext|end_of_text|end|eot|return|call|eos|end_of_turn|END_OF_TURN_TOKEN|"
    r"end_of_sentence|user|system|observation|im_start|start_header_id|separator|diff_marker|fim_\w+)\|>|</s>|<eos>|"
    r"<end_of_turn>|<start_of_turn>|<end_of_utterance>|<eod>|<turn\|>|\[e~\[|<[|｜](?:end▁of▁sentence|User)[|｜]>",
)
"""After such a token the model goes on without being asked."""
_TRAILING = re.compile(
    r"(?:\s*(?:<\|(?!(?:box|object_ref|quad|/?ref|/?det)_?(?:end)?\|>)[\w/ -]+\|>|<pad>|<unk>|<unused\d+>|<mask>|"
    r"\[PAD\]|\[EOS\]|\[SEP\]))+\s*$"
)
_FILLER = re.compile(r"\s*(?:<pad>|<unused\d+>|<unk>|\[PAD\]|<\|(?:endoftext|pad|im_end)\|>)+")
_FENCE = re.compile(r"```[ \t]*([\w+-]*)[ \t]*\n?(.*?)\n?[ \t]*```", re.DOTALL)
PLAIN = ("", "text", "txt", "plaintext", "markdown", "md", "json", "caption")
"""Languages of a fence around a whole answer that is no program."""


@dataclass
class Answer:
    """A text without the markup that was in it."""

    text: str
    reasoning: str = ""
    """What the model thought aloud."""
    removed: list[str] = field(default_factory=list)
    """Everything else that was taken out."""
    is_cut: bool = False
    """Whether a thought has no end, so that the answer never began."""


def split(content: str) -> Answer:
    """The text of an answer, and what was around it."""
    if not re.search(r"[<◁`\[]", content):
        return Answer(content.strip())
    found = _without_thoughts(content)
    if found.is_cut:
        return found
    for step in (_turn, _boxes, _whole_fence):
        found.text = step(found.text.strip(), found.removed)
    found.text = found.text.strip()
    return found


def _without_thoughts(content: str) -> Answer:
    answer: list[str] = []
    thoughts: list[str] = []
    thinking, position = False, 0
    for tag in _TAG.finditer(content):
        if _is_mentioned(content, tag):
            continue
        before = content[position : tag.start()]
        position = tag.end()
        if tag["close"]:
            if not thinking:  # the template began the thought, so all until here is one
                thoughts += [*answer, before]
                answer = []
            else:
                thoughts.append(before)
            thinking = False
        else:
            (thoughts if thinking else answer).append(before)
            thinking = True
    rest = content[position:]
    (thoughts if thinking else answer).append(rest)
    reasoning = "\n".join(filter(None, (thought.strip() for thought in thoughts)))
    return Answer("".join(answer), reasoning, is_cut=thinking)


def _is_mentioned(content: str, tag: re.Match[str]) -> bool:
    """Whether a tag is a thing that a text is about: in quotation marks, or called a tag."""
    before, after = content[: tag.start()][-1:], content[tag.end() :][:1]
    if before and before in _QUOTES and after and after in _QUOTES:
        return True
    return bool(_MENTION.match(content, tag.end())) and bool(re.search(r"\w", content[: tag.start()]))


def _turn(text: str, removed: list[str]) -> str:
    """Without the tokens of turns, and without what comes after the end of its own."""
    if begun := _START.match(text):
        removed.append(begun[0].strip())
        text = text[begun.end() :]
    if filler := _FILLER.match(text):
        removed.append(filler[0].strip())
        text = text[filler.end() :]
    for end in _END.finditer(text):
        if text[: end.start()].strip():
            removed.append(text[end.start() :].strip())
            text = text[: end.start()]
            break
    if trailing := _TRAILING.search(text):
        removed.append(trailing[0].strip())
        text = text[: trailing.start()]
    return text


def _boxes(text: str, removed: list[str]) -> str:
    """Without the marks around an answer. What is outside an `<answer>` is not the answer."""
    if (answer := _ANSWER.search(text)) and answer[2].strip() and not _inside_quotes(text, answer.start()):
        outside = [text[: answer.start()].strip(), text[answer.end() :].strip()]
        removed += [f"<{answer[1]}>", *filter(None, outside)]
        text = answer[2].strip()
    elif (wrapped := _WRAP.fullmatch(text)) and wrapped[2].strip():
        removed.append(f"<{wrapped[1]}>")
        text = wrapped[2].strip()
    if lone := _LONE.search(text):
        removed.append(lone[0].strip())
        text = text[: lone.start()]
    if _BOX.search(text):
        removed.append("<|begin_of_box|>")
        text = _BOX.sub(r"\1", text)
    if _RESPONSE.search(text):
        removed += dict.fromkeys(_RESPONSE.findall(text))
        text = _RESPONSE.sub("", text)
    return text


def _inside_quotes(text: str, position: int) -> bool:
    return text[:position][-1:] in set(_QUOTES)


def _whole_fence(text: str, removed: list[str]) -> str:
    fence = _FENCE.fullmatch(text)
    if fence is None or fence[1].lower() not in PLAIN or "```" in fence[2] or not fence[2].strip():
        return text
    removed.append(f"```{fence[1]}")
    return fence[2].strip()


def json_in(text: str, removed: list[str]) -> Any:
    """The JSON value in an answer, whole, in a fence, or between words. Raises ValueError, RecursionError."""
    try:
        return json.loads(text)
    except ValueError as error:
        wrong = error
    fences = [fence for fence in _FENCE.finditer(text) if fence[1].lower() in PLAIN]
    for start, end, inside in [(f.start(), f.end(), f[2]) for f in fences] if len(fences) == 1 else []:
        try:
            value = json.loads(inside)
        except ValueError:
            continue
        removed += [part for part in (text[:start].strip(), "```", text[end:].strip()) if part]
        return value
    begin = re.search(r"[{\[]", text)
    if begin is None:
        raise wrong
    value, end = json.JSONDecoder().raw_decode(text, begin.start())
    after = text[end:].strip().removesuffix("```").strip()
    if not isinstance(value, dict | list) or re.search(r"[{}\[\]]", after):
        raise wrong
    removed += [part for part in (text[: begin.start()].strip(), after) if part]
    return value
