"""Whether a text that came as an answer is none: a refusal, the text of an error, or a word for nothing.

Only what is one as a whole counts. A description of a screenshot with an error, a postcard that says sorry, and a
caption with one sentence of caution are answers. The words are in no_answer_words.py; fields, codes and finish reasons
come first, and are read elsewhere.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache
from typing import Literal

from fastgen.backends.remote.no_answer_words import LANGUAGES, MARKS, Words

Kind = Literal["", "refusal", "error", "nothing"]
MOST_CHARACTERS = 1500
"""Refusals and messages are short; a longer text is only looked at for web pages and tracebacks."""
MOST_OF_ERROR = 700
MOST_CONTENT = 0.5
"""Share of a refusal that may be sentences that are none; more is a description with a caution in it."""
_NOTHING = re.compile(
    r"(?:null|none|nil|n/?a|nan|undefined|\[?object object\]?|unknown error|error|failed|\{\s*\}|\[\s*\]|\"\"|''|"
    r"-+|\.{2,}|\?+|_+|!{3,}|no (?:output|response|answer|content|caption|description)|no response from (?:the )"
    r"?model|"
    r"empty(?: response)?|<(?:caption|description|answer|text|image|none|empty)>|\[(?:caption|description|image|"
    r"answer|"
    r"text|insert [^\]]*)\]|无|空|暂无|なし|없음|нет ответа|\(?(?:empty|blank|no text)\)?)"
)
_REPEATED = re.compile(r"(\S)\1{19,}|(\S{1,12}?)\2{15,}|(?:(\S{1,12}) )(?:\3 ){15,}")
_PAGE = re.compile(r"<(?:!doctype|html|head|body|title|center|h1|\?xml|error|errors|response)\b", re.IGNORECASE)
_TRACEBACK = re.compile(r"traceback \(most recent call last\):?\s|(?:error|exception)[^\n]{0,200}\n\s+at [\w.$<>]+\(")
_WRONG_KEYS = {
    "error",
    "errors",
    "detail",
    "traceback",
    "error_message",
    "error_msg",
    "errormessage",
    "error_code",
    "errorcode",
    "exception",
    "errmsg",
    "errcode",
    "stack",
    "fault",
}
_ERROR_KEYS = _WRONG_KEYS | {
    "message",
    "msg",
    "code",
    "status",
    "status_code",
    "statuscode",
    "type",
    "param",
    "request_id",
    "requestid",
    "success",
    "ok",
    "object",
    "path",
    "timestamp",
    "data",
    "result",
    "reason",
    "title",
    "instance",
}
_TECHNICAL = re.compile(
    r"code|request|server|api|key|token|rate|limit|time|connect|http|status|fail|invalid|authori|forbidden|found|"
    r"memory|"
    r"cuda|load|process|generat|respon|model|image|input|null|undefined|none|quota|exceed|available|internal|"
    r"upstream|"
    r"gateway|pars|json|decod|unknown|unexpected|occur|try again|exception|\d{3}|network|content|policy|"
    r"unsupported|value|"
    r"argument|type|attribute|module|index|permission|safety|denied|block|missing|empty|url|file|object|tensor|"
    r"device|"
    r"service|worker|argum|balance|credit|user|account|proxy|ssl|socket|host|address|batch|shape|size|context|length"
)
_EXCEPTION = re.compile(r"(?:\w+\.)*\w{3,}(?:error|exception)\b ?[:(]")
"""The name of a program's exception."""
_WORD_ENDS = re.compile(r"[\s,.:;!、。]+|(?<=[\u3000-\u9fff\uac00-\ud7af])")
MOST_OF_LEAD = 160
"""Characters after which a sentence that begins with an apology is about something else."""
MOST_OF_MARKED = 220
LEAST_MARKS = 2
"""So many technical words, and nothing that can be seen, make a short text an error; one more in English."""
_SENTENCE = re.compile(
    r"(?<=[.!?…])[\"')\]]*\s+|(?<=[。!?])(?=\S)|(?<=。)|\n+|"
    r", (?:but|however|although|though) (?=(?:the|it|there|this|here|an?|in) )"
)
_APOLOGY = re.compile(
    r"(?:(?:i'?m|i am|we'?re|we are) )?(?:very |so |really |truly |terribly )?(?:sorry|apologies)(?: about that| "
    r"for (?:the|any) "
    r"\w+)?|(?:my|our) apologies|i apologi[sz]e[^.]{0,50}|(?:很|非常)?(?:抱歉|对不起)|(?:大変)"
    r"?申し訳(?:ありません|ございません)|すみません|"
    r"죄송합니다|(?:es )?tut mir (?:sehr )?leid|entschuldigung|(?:je suis )?(?:vraiment )?désolée?|lo siento(?: "
    r"mucho)?|"
    r"(?:lo )?lamento|извините|простите|мне (?:очень )?жаль|приношу извинения"
)


def kind_of(text: str) -> Kind:
    """What a text is that came as an answer; "" for an answer."""
    plain = _plain(text)
    if not plain or _NOTHING.fullmatch(plain):
        return "nothing"
    if _PAGE.match(text.lstrip()) or _TRACEBACK.match(plain) or _is_error_object(text):
        return "error"
    if len(plain) > 40 and _is_repeated(plain):
        return "nothing"
    if len(plain) > MOST_CHARACTERS:
        return ""
    if _is_refusal(plain):
        return "refusal"
    return "error" if len(plain) <= MOST_OF_ERROR and _is_error(plain) else ""


def _plain(text: str) -> str:
    """The text in lower case, without emphasis, quotes around it, and marks at its beginning."""
    text = unicodedata.normalize("NFKC", text[: 4 * MOST_CHARACTERS]).replace("’", "'").replace("‘", "'").lower()
    text = text.replace("“", '"').replace("”", '"')
    text = re.sub(r"[*`]+|^#+ |^> |__+", "", text, flags=re.MULTILINE).strip()
    text = re.sub(r"^[^\w\"'<\[{(«「『.\-?!_]+", "", text)
    if len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]:
        text = text[1:-1].strip()
    if text.startswith("[") and text.endswith("]") and not text.startswith(("[object", "[caption", "[insert")):
        inside = text[1:-1].strip()
        text = inside if re.match(r"[^\W\d]", inside) and "," not in inside else text
    return re.sub(r"^(?:assistant|caption|description|answer|response|output|model|ai)\s*: *", "", text)


def _is_repeated(plain: str) -> bool:
    found = _REPEATED.search(plain)
    return found is not None and len(found[0]) > 0.8 * len(plain)


def _is_error_object(text: str) -> bool:
    """Whether a text is the JSON of an error."""
    text = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    if not text.startswith("{"):
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        begins = re.match(r"\{\s*['\"](error|errors|detail|error_message|error_code)['\"]\s*:", text, re.IGNORECASE)
        return begins is not None
    if not isinstance(value, dict) or not value:
        return False
    keys = {str(key).lower() for key in value}
    wrong = any(value[key] not in (None, "", [], False, 0) for key in value if str(key).lower() in _WRONG_KEYS)
    failed = value.get("success") is False or value.get("ok") is False or value.get("status") in ("error", "failed")
    said = value.get("message") or value.get("msg")
    failed = failed or (isinstance(said, str) and _is_error(_plain(said)))
    return keys <= _ERROR_KEYS and (wrong or failed)


def _is_refusal(plain: str) -> bool:
    sentences = [part.strip() for part in _SENTENCE.split(plain) if part and part.strip()]
    if all(_APOLOGY.fullmatch(part.strip(" .,!。")) for part in sentences):
        return True
    refusing = content = talk = 0
    first = 0
    for number, sentence in enumerate(sentences):
        if any(_refuses(sentence, words) for words in _compiled()):
            refusing += len(sentence)
            first = first or number + 1
        elif any(words["meta"].search(sentence) and not words["quoted"].search(sentence) for words in _compiled()):
            talk += len(sentence)
        else:
            content += len(sentence)
    if not refusing:
        return False
    # A refusal comes first. What describes goes on for longer than what refuses.
    return first <= 3 and content <= MOST_CONTENT * (refusing + talk + content)


def _refuses(sentence: str, words: dict[str, re.Pattern[str]]) -> bool:
    if words["quoted"].search(sentence):
        return False
    if _begins(sentence, words, "refusals"):
        return True
    if len(sentence) > MOST_OF_MARKED or any(other["depicted"].search(sentence) for other in _compiled()):
        return False
    return all(words[name].search(sentence) for name in ("speaker", "negation", "service"))


def _begins(sentence: str, words: dict[str, re.Pattern[str]], kind: str) -> bool:
    """Whether a sentence begins as refusals or errors do, or goes on so after "sorry, but", "as an AI" and the like."""
    if words[kind].match(sentence):
        return True
    if not words["lead"].match(sentence):
        return False
    return any(words[kind].match(sentence, at.end()) for at in _WORD_ENDS.finditer(sentence[:MOST_OF_LEAD]))


def _is_error(plain: str) -> bool:
    first = next(part.strip() for part in _SENTENCE.split(plain) if part and part.strip())
    begins = any(_begins(first, words, "errors") for words in _compiled())
    if not begins and not _is_marked(plain):
        return False
    if any(words["quoted"].search(plain) or words["depicted"].search(plain) for words in _compiled()):
        return False
    # English words of errors are words of everyday, too: something technical must be said.
    return (
        _is_marked(plain)
        or _EXCEPTION.match(plain) is not None
        or _TECHNICAL.search(plain) is not None
        or any(_begins(first, words, "errors") for words in _compiled()[1:])
    )


def _is_marked(plain: str) -> bool:
    """Whether a short text has as many technical words as only messages have."""
    if len(plain) > MOST_OF_MARKED or re.match(r"(?:an?|two|three|some) (?!\w*error)", plain):
        return False
    return any(len(set(marks.findall(plain))) >= LEAST_MARKS + (marks is _MARKS[0]) for marks in _MARKS)


_MARKS = tuple(map(re.compile, MARKS))


@lru_cache(maxsize=1)
def _compiled() -> tuple[dict[str, re.Pattern[str]], ...]:
    return tuple(map(_compile, LANGUAGES))


def _compile(words: Words) -> dict[str, re.Pattern[str]]:
    return {
        "lead": re.compile(words.lead),
        "refusals": re.compile(f"(?:{'|'.join(words.refusals)})"),
        "errors": re.compile(f"(?:{'|'.join(words.errors)})"),
        "meta": re.compile(words.meta),
        "quoted": re.compile(words.quoted),
        "depicted": re.compile(words.depicted),
        "speaker": re.compile(words.speaker),
        "negation": re.compile(words.negation),
        "service": re.compile(words.service),
    }
