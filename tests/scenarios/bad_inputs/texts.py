"""Rows of images from text and of captions: fields, turns, ids. They are found before a model is asked."""

from __future__ import annotations

from tests.scenarios.bad_inputs.case import LONG, Row

GOOD_T2I = {"prompt": "a fox"}
GOOD_CAPTION = {"image": "good.png"}
USER = {"role": "user", "content": "a fox"}


def t2i(kind: str, field: str, words: str, **row: object) -> Row:
    return Row(kind, {"prompt": "a fox", **row}, field, words)


def caption(kind: str, field: str, words: str, **row: object) -> Row:
    return Row(kind, {"image": "good.png", **row}, field, words)


T2I = [
    Row("an empty row", {}, "prompt", "give `prompt`"),
    Row("other fields only", {"words": "a fox"}, "prompt", "give `prompt`"),
    t2i("`prompt`: empty", "prompt", "give `prompt`", prompt=""),
    t2i("`prompt`: blanks", "prompt", "no text from the user", prompt=" \n"),
    t2i("`prompt`: null", "prompt", "give `prompt`", prompt=None),
    t2i("`prompt`: a number", "prompt", "must be a string", prompt=7),
    t2i("`prompt`: false", "prompt", "must be a string", prompt=False),
    t2i("`conversations`: a text", "conversations", "list of turns", prompt="", conversations="a fox"),
    t2i("`conversations`: texts", "conversations", "list of turns", prompt="", conversations=["a fox"]),
    t2i("`conversations`: an object", "conversations", "list of turns", prompt="", conversations=USER),
    t2i(
        "`conversations`: an answer only",
        "conversations",
        "no text from the user",
        prompt="",
        conversations=[{"role": "assistant", "content": "a"}],
    ),
    t2i(
        "`conversations`: a number as role",
        "conversations",
        "role must be a string",
        prompt="",
        conversations=[{"role": 1, "content": "a"}],
    ),
    t2i(
        "`conversations`: a number as content",
        "conversations",
        "must be a string",
        prompt="",
        conversations=[{"role": "user", "content": 1}],
    ),
    t2i("`conversations`: 65 turns", "conversations", "the most is 64", prompt="", conversations=[USER] * 65),
    t2i("`conversation`: an empty turn", "conversation", "no text from the user", prompt="", conversation=[{}]),
    t2i("`size`: a word", "size", "1024x768", size="large"),
    t2i("`size`: a number", "size", "1024x768", size=64),
    t2i("`size`: three numbers", "size", "1024x768", size=[64, 64, 3]),
    t2i("`size`: true in a list", "size", "whole number", size=[64, True]),
    t2i("`size`: zero", "size", "at least 16", size="0x64"),
    t2i("`size`: negative", "size", "1024x768", size="-64x64"),
    t2i("`size`: not of the grid", "size", "nearest size is", size="100x100"),
    t2i("`size`: too large", "size", "the most is", size="100000x100000"),
    t2i("`size`: digits of another script", "size", "1024x768", size="٦٤x٦٤"),
    t2i("`size`: it contradicts `width`", "size", "give only one", size="64x64", width=96, height=64),
    t2i("`width` alone", "height", "together", width=64),
    t2i("`height` alone", "width", "together", height=64),
    t2i("`width`: a text", "width", "whole number", width="64", height=64),
    t2i("`width`: NaN", "width", "whole number", width=float("nan"), height=64),
    t2i("`width`: infinite", "width", "whole number", width=float("inf"), height=64),
    t2i("`width`: a fraction", "width", "whole number", width=64.5, height=64),
    t2i("`height`: negative", "height", "out of range", width=64, height=-64),
    t2i("`steps`: zero", "steps", "from 1 to 1000", steps=0),
    t2i("`steps`: 1,001", "steps", "from 1 to 1000", steps=1001),
    t2i("`steps`: a fraction", "steps", "whole number", steps=4.5),
    t2i("`steps`: true", "steps", "whole number", steps=True),
    t2i("`steps`: a list", "steps", "whole number", steps=[4]),
    t2i("`guidance`: a text", "guidance", "must be a number", guidance="3.5"),
    t2i("`guidance`: negative", "guidance", "from 0 to 100", guidance=-1),
    t2i("`guidance`: infinite", "guidance", "from 0 to 100", guidance=float("inf")),
    t2i("`guidance`: 101", "guidance", "from 0 to 100", guidance=101),
    t2i("`guidance`: true", "guidance", "must be a number", guidance=True),
    t2i("`seed`: a text", "seed", "whole number", seed="random"),
    t2i("`seed`: more than 53 bits", "seed", "from 0 to", seed=2**53),
    t2i("`seed`: a fraction", "seed", "whole number", seed=0.5),
    t2i("`n`: zero", "n", "from 1 to 256", n=0),
    t2i("`n`: 257", "n", "from 1 to 256", n=257),
    t2i("`n`: a text", "n", "whole number", n="2"),
    t2i("`id`: an earlier row's", "id", "give each row its own id", prompt="a hare", id="good"),
    t2i("`id`: a fraction", "id", "string or a whole number", id=1.5),
    t2i("`id`: true", "id", "string or a whole number", id=True),
    t2i("`id`: blanks", "id", "1 to 512 characters", id="  "),
    t2i("`id`: a list", "id", "string or a whole number", id=["a"]),
]
CAPTION = [
    Row("no image", {"prompt": "What is this?"}, "images", "give a path"),
    caption("`image`: no such file", "image", "no such file", image="missing.png"),
    caption("`image`: an empty list", "images", "give a path", image=[]),
    caption("`prompt`: a number", "prompt", "must be a string", prompt=1),
    caption("`prompt`: 300,000 characters", "prompt", "the most is 32,000", prompt="x" * LONG),
    caption("`prompt`: two marks for one image", "prompt", "one mark per image", prompt="<image><image> What?"),
    caption(
        "`conversations`: an unknown role",
        "conversations",
        "role is one of",
        conversations=[{"role": "narrator", "content": "a"}],
    ),
    caption(
        "`conversations`: 65 turns",
        "conversations",
        "the most is 64",
        conversations=[{"role": "user", "content": "a"}] * 65,
    ),
    caption("`max_tokens`: zero", "max_tokens", "from 1 to", max_tokens=0),
    caption("`max_tokens`: a text", "max_tokens", "whole number", max_tokens="many"),
    caption("`temperature`: negative", "temperature", "from 0 to 100", temperature=-0.1),
    caption("`temperature`: NaN", "temperature", "from 0 to 100", temperature=float("nan")),
    caption("`temperature`: a text", "temperature", "must be a number", temperature="hot"),
    caption("`seed`: negative", "seed", "from 0 to", seed=-1),
    caption("`text_only` with an image", "text_only", "leave one of the two out", text_only=True),
    Row("`text_only` without a question", {"text_only": True}, "prompt", "needs a prompt"),
]
