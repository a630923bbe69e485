"""Commands with flags, files and variables that cannot be: each is refused before any work."""

from __future__ import annotations

from tests.scenarios.bad_inputs.case import LONG, Command
from tests.scenarios.bad_inputs.files import PROFILES, SCHEMAS, SERVICES

FAKE = ("rows.jsonl", "--backend", "fake", "--gpus", "cpu")
TINY = ("rows.jsonl", "--model", "tiny", "--gpus", "cpu")
CLOSED = "http://127.0.0.1:9/v1"
OPENAI = ("rows.jsonl", "--backend", "openai", "--base-url", CLOSED)
GEMINI = ("rows.jsonl", "--backend", "gemini", "--base-url", CLOSED)
BYTES = "caf\udce9"
"""A word of bytes that are not UTF-8, as a program gets it from the shell."""


def t2i(kind: str, flag: str, value: str | None, words: str, rest: tuple[str, ...] = FAKE) -> Command:
    line = ("t2i", *rest, flag) if value is None else ("t2i", *rest, flag, value)
    return Command(f"`{flag}`: {kind}", line, flag, words)


def caption(kind: str, flag: str, value: str, words: str, rest: tuple[str, ...] = FAKE) -> Command:
    return Command(f"`{flag}`: {kind}", ("caption", *rest, flag, value), flag, words)


def rows(kind: str, path: str, words: str, task: str = "t2i") -> Command:
    return Command(f"INPUT: {kind}", (task, path, *FAKE[1:]), "INPUT", words)


INPUTS = [
    rows("no such file", "nowhere.jsonl", "no such file"),
    rows("a folder", ".", "is a folder"),
    rows("no bytes", "empty.jsonl", "the file is empty"),
    rows("blank lines", "blank.jsonl", "holds no rows"),
    rows("a .docx file", "rows.docx", "must end in .jsonl"),
    rows("a .xlsx file", "rows.xlsx", "must end in .jsonl"),
    rows("a .csv file without a header", "none.csv", "must name the columns"),
    rows("a .parquet file of something else", "none.parquet", "cannot be read"),
    rows("a file without ending", "file", "must end in .jsonl"),
    rows("an image", "good.png", "use fastgen edit or fastgen caption"),
    rows("a pipe", "pipe.jsonl", "not a regular file"),
    rows("a device", "/dev/zero", "must end in .jsonl"),
    rows("an address", "https://example.com/rows.jsonl", "must be on a disk"),
    rows("an address with a password", "s3://key:hush@bucket/rows.jsonl", "set it in the environment"),
    rows("a storage without its package", "gs://bucket/rows.jsonl", "add it with"),
    rows("a .json file with one object", "object.json", "one list of rows"),
    rows("a .json file with a text", "text.json", "one list of rows"),
    rows("a .json file that is cut", "cut.json", "not valid JSON"),
    rows("a .json file with two lists", "two.json", "not valid JSON"),
    rows("a .json file with one row per line", "lines.json", "name it .jsonl"),
    rows("a .json file with an empty list", "none.json", "holds no rows"),
    rows("a .json file of 100,000 brackets", "brackets.json", "nested too deep"),
    rows("a folder without images", "model", "holds no rows", "caption"),
    rows("a path of 300,000 characters", "x" * LONG, "no such file"),
    rows("a name that is not UTF-8", BYTES, "is not UTF-8"),
    Command("two of them", ("t2i", *FAKE, "more.jsonl"), "more.jsonl", "unexpected extra argument"),
]
FLAGS = [
    Command("a flag that does not exist", ("t2i", *FAKE, "--nonesuch"), "--nonesuch", "No such option"),
    Command("a flag without its value", ("t2i", *FAKE, "-o", "new", "--steps"), "--steps", "requires an argument"),
    Command("a command that does not exist", ("paint",), "paint", "No such command"),
    Command("a flag of another command", ("caption", *FAKE, "--steps", "4"), "--steps", "No such option"),
    t2i("zero", "--steps", "0", "from 1 to 1000"),
    t2i("1,001", "--steps", "1001", "from 1 to 1000"),
    t2i("a word", "--steps", "many", "valid integer"),
    t2i("NaN", "--guidance", "nan", "from 0 to 100"),
    t2i("infinite", "--guidance", "inf", "from 0 to 100"),
    t2i("negative", "--guidance", "-1", "from 0 to 100"),
    t2i("a word", "--guidance", "strong", "valid number"),
    t2i("zero", "--n", "0", "from 1 to 256"),
    t2i("257", "--n", "257", "from 1 to 256"),
    t2i("negative", "--seed", "-1", "from 0 to"),
    t2i("more than 53 bits", "--seed", str(2**53), "from 0 to"),
    t2i("5,000 digits", "--seed", "9" * 5000, "--seed"),
    t2i("empty", "--size", "", "WIDTHxHEIGHT"),
    t2i("one number", "--size", "64", "WIDTHxHEIGHT"),
    t2i("three numbers", "--size", "64x64x64", "WIDTHxHEIGHT"),
    t2i("zero", "--size", "0x0", "at least 16 pixels"),
    t2i("not of the grid", "--size", "100x100", "nearest size is 96x96", TINY),
    t2i("too large", "--size", "9999999x64", "the most is", TINY),
    t2i("300,000 characters", "--size", "x" * LONG, "WIDTHxHEIGHT"),
    t2i("zero", "--batch-size", "0", "from 1 to 1024"),
    t2i("a word", "--batch-size", "large", "or auto"),
    t2i("a digit of another script", "--batch-size", "٣", "or auto"),
    t2i("an unknown type", "--dtype", "int8", "one of auto"),
    t2i("an unknown format", "--format", "gif", "one of png"),
    t2i("empty", "--format", "", "one of png"),
    t2i("empty", "--output-key", "", "not the name of a field"),
    t2i("a line break", "--output-key", "a\nb", "not the name of a field"),
    t2i("a field that is read", "--output-key", "prompt", "choose another name"),
    t2i("not UTF-8", "--output-key", BYTES, "is not UTF-8"),
    t2i("no such folder", "--image-root", "nowhere", "no such folder"),
    t2i("a file", "--image-root", "file", "no such folder"),
    t2i("not UTF-8", "--image-root", BYTES, "is not UTF-8"),
    t2i("zero", "--limit", "0", "from 1 to"),
    t2i("negative", "--limit", "-1", "from 1 to"),
    t2i("zero", "--max-inflight", "0", "from 1 to 4096"),
    t2i("negative", "--rpm", "-1", "from 0 to"),
    t2i("zero", "--timeout", "0", "number of seconds"),
    t2i("infinite", "--timeout", "inf", "number of seconds"),
    t2i("negative", "--max-cost", "-1", "amount in USD"),
    t2i("NaN", "--max-cost", "nan", "amount in USD"),
    t2i("no such GPU", "--gpus", "0", "use --gpus cpu"),
    t2i("all, of none", "--gpus", "all", "use --gpus cpu"),
    t2i("a name", "--gpus", "cuda:0", "GPU numbers"),
    t2i("no processes", "--gpus", "cpu:0", "from 1 to 256"),
    t2i("zero", "--max-sequence-length", "0", "from 1 to 512"),
    t2i("an unknown backend", "--backend", "nonesuch", "one of local"),
    t2i("a backend of another task", "--backend", "vllm", "one of local"),
    t2i("an unknown backend", "--fallback", "nonesuch", "one of local"),
    t2i("the same backend twice", "--fallback", "openai,openai", "twice"),
    t2i("commas only", "--fallback", ",,", "names no backend"),
    t2i("an address by ftp", "--fallback", "openai@ftp://host", "not an address"),
    t2i("an address with a key", "--fallback", f"openai@{CLOSED}?key=secret", "set the key in the environment"),
    Command("`-o`: a file", ("t2i", *FAKE, "-o", "file"), "-o", "cannot write there"),
    Command("`-o`: below a file", ("t2i", *FAKE, "-o", "file/out"), "-o", "cannot write there"),
    Command("`-o`: below the kernel's files", ("t2i", *FAKE, "-o", "/proc/out"), "-o", "cannot write there"),
    Command("`-o`: a name of 300,000 characters", ("t2i", *FAKE, "-o", "x" * LONG), "-o", "cannot write there"),
    Command("`-o`: not UTF-8", ("t2i", *FAKE, "-o", BYTES), "-o", "is not UTF-8"),
]
CAPTIONS = [
    caption("zero", "--max-tokens", "0", "from 1 to"),
    caption("NaN", "--temperature", "nan", "from 0 to 100"),
    caption("negative", "--temperature", "-1", "from 0 to 100"),
    caption("zero", "--max-pixels", "0", "from 1024 to"),
    caption("not UTF-8", "--prompt", BYTES, "is not UTF-8"),
    caption("not UTF-8", "--system", BYTES, "is not UTF-8"),
    caption("no such folder", "--model", "nonesuch", "no such folder", ("rows.jsonl",)),
    caption("a folder without a model", "--model", "model", "config.json", ("rows.jsonl",)),
    caption("no such program", "--vllm-command", "nonesuch", "no such program", ("rows.jsonl",)),
    caption("an open quotation mark", "--vllm-command", "'vllm", "quotation mark", ("rows.jsonl",)),
    caption("beside an address", "--vllm-command", "vllm", "only one of them", ("rows.jsonl", "--base-url", CLOSED)),
    caption("no such file", "--schema", "nowhere.json", "No such file"),
    caption("a folder", "--schema", "model", "Is a directory"),
    caption("not UTF-8 inside", "--schema", "latin.json", "UTF-8"),
    *(caption(f"wrong ({name})", "--schema", f"schema-{name}.json", "JSON") for name in SCHEMAS if name != "deep"),
    caption("100,000 brackets", "--schema", "schema-deep.json", "nested too deep"),
]
LOCAL = [
    t2i("no such folder", "--model", "nonesuch", "no such folder", ("rows.jsonl",)),
    t2i("not in the cache, and offline", "--model", "owner/nonesuch", "give its folder", ("rows.jsonl",)),
    t2i("a file", "--model", "file", "is a file", ("rows.jsonl",)),
    t2i("a folder of something else", "--model", "folder.png", "is missing", ("rows.jsonl",)),
    t2i("another family", "--model", "model", "supported are", ("rows.jsonl",)),
    t2i("a damaged folder", "--model", "half-model", "Download the model again", ("rows.jsonl",)),
    t2i("empty", "--model", "", "is empty", ("rows.jsonl",)),
    t2i("300,000 characters", "--model", "x" * LONG, "no such folder", ("rows.jsonl",)),
    t2i("not UTF-8", "--model", BYTES, "is not UTF-8", ("rows.jsonl",)),
    t2i("unknown on this machine", "--quality", "ultra", "exact, high, fast", TINY),
    t2i("of services only", "--background", "transparent", "only APIs", TINY),
    t2i("of services only", "--aspect-ratio", "16:9", "only APIs", TINY),
    t2i("of services only", "--resolution", "2K", "only APIs", TINY),
    t2i("of services only", "--base-url", CLOSED, "--backend openai", TINY),
    t2i("empty", "--base-url", "", "is empty", TINY),
    t2i("an unknown kernel", "--attention", "nonesuch", "one of auto", TINY),
    t2i("a kernel that this machine cannot run", "--attention", "flash", "needs a CUDA GPU", TINY),
    t2i("an unknown kind", "--quantize", "2bit", "8bit, 4bit", TINY),
    t2i("an unknown part", "--quantize", "vae:8bit", "text:KIND", TINY),
    t2i("an unknown kind", "--cache", "nonesuch", "first-block", TINY),
    t2i("a threshold of zero", "--cache", "first-block:0", "above 0", TINY),
    t2i("a threshold of NaN", "--cache", "first-block:nan", "above 0", TINY),
    t2i("larger than the image", "--progressive", "2", "SCALE:SHARE", TINY),
    t2i("an unknown kind", "--offload", "nonesuch", "one of none", TINY),
    t2i("without a GPU", "--offload", "text", "leave it out", TINY),
    t2i("no such file", "--profile", "nowhere.toml", "no such file", TINY),
    t2i("a folder", "--profile", "model", "no such file", TINY),
    t2i("no TOML", "--profile", "broken.toml", "see the profiles", TINY),
    t2i("not UTF-8 inside", "--profile", "latin.toml", "save it as UTF-8", TINY),
    *(
        t2i(f"wrong ({name})", "--profile", f"profile-{name}.toml", "see the profiles", TINY)
        for name in PROFILES
        if name != "cache"
    ),
    Command(
        "`--profile`: a choice that does not exist",
        ("t2i", *TINY, "--profile", "profile-cache.toml"),
        "profile 'profile-cache'",
        "first-block",
    ),
]


def weights(kind: str, file: str, words: str, flag: str = "--lora") -> Command:
    return Command(f"`{flag}`: {kind}", ("t2i", *TINY, flag, file), flag, words)


WEIGHTS = [
    weights("no such file", "nowhere.safetensors", "no such file"),
    weights("a folder", "model", "no such file"),
    weights("a pipe", "pipe.safetensors", "no such file"),
    weights("a scale that is infinite", "good.safetensors:inf", "finite number"),
    weights("no bytes", "file", "cut off"),
    weights("five bytes", "short.safetensors", "cut off"),
    weights("a cut header", "cut-header.safetensors", "download it again"),
    weights("cut tensors", "cut.safetensors", "cut off"),
    weights("a header of an exabyte", "huge-header.safetensors", "download it again"),
    weights("a header that is a list", "header-list.safetensors", "download it again"),
    weights("a header with wrong types", "header-types.safetensors", "download it again"),
    weights("a header of 100,000 brackets", "header-deep.safetensors", "download it again"),
    weights("a negative shape", "header-negative.safetensors", "download"),
    weights("a tensor outside of the file", "header-outside.safetensors", "cut off"),
    weights("a web page", "page.safetensors", "download it again"),
    weights("a pickle", "pickle.pt", "is a pickle"),
    weights("a pickle with another ending", "pickle.safetensors", "is a pickle"),
    weights("an archive", "archive.ckpt", "is a pickle"),
    weights("GGUF", "model.gguf", "is a GGUF file"),
    weights("no tensors", "nothing.safetensors", "no LoRA weights"),
    weights("half of a LoKr", "lokr.safetensors", "lokr_w2 are missing"),
    weights("a part of a LoHa", "loha.safetensors", "hada_w1 are missing"),
    weights("an OFT", "oft.safetensors", "OFT"),
    weights("for another family", "sdxl.safetensors", "down_blocks"),
    weights("for a larger model", "wide.safetensors", "128"),
    weights("two ranks in one layer", "rank.safetensors", "rank"),
    weights("half of a pair", "half.safetensors", "other matrix is missing"),
    weights("a block that the model does not have", "block.safetensors", "transformer_blocks.99"),
    weights("a tensor that belongs nowhere", "extra.safetensors", "nonesuch"),
    weights("whole weights", "whole.safetensors", "to_q"),
    weights("metadata that are not JSON", "metadata.safetensors", "metadata"),
    weights("no such file", "nowhere.safetensors", "no such file", "--transformer"),
    weights("a pickle", "pickle.pt", "is a pickle", "--transformer"),
    weights("a LoRA", "good.safetensors", "lora", "--transformer"),
    weights("a few tensors", "whole.safetensors", "missing", "--transformer"),
]


def variable(kind: str, name: str, value: str, words: str, backend: str = "openai", **more: str) -> Command:
    line = ("t2i", "rows.jsonl", "--backend", backend)
    return Command(f"{name}: {kind}", line, name, words, {name: value, **more})


def address(kind: str, url: str, words: str = "not an address") -> Command:
    line = ("t2i", "rows.jsonl", "--backend", "openai", "--base-url", url)
    return Command(f"`--base-url`: {kind}", line, "--base-url", words)


SERVICE = [
    Command("no key", ("t2i", "rows.jsonl", "--backend", "openai"), "OPENAI_API_KEY", "set OPENAI_API_KEY"),
    Command("no key for Gemini", ("t2i", "rows.jsonl", "--backend", "gemini"), "GEMINI_API_KEY", "set GEMINI_API_KEY"),
    variable("a line break in it", "OPENAI_API_KEY", "sk-a\nb", "set it again"),
    variable("letters of another script", "OPENAI_API_KEY", "ключ", "set it again"),
    variable("blanks", "OPENAI_API_KEY", "  ", "set OPENAI_API_KEY"),
    variable("a line break in it", "GEMINI_API_KEY", "a\nb", "set it again", "gemini"),
    variable("an address by ftp", "OPENAI_BASE_URL", "ftp://host/v1", "not an address", OPENAI_API_KEY="a"),
    variable("a password in it", "DF_BASE_URL", "http://me:secret@host/v1", "set the key in", DF_API_KEY="a"),
    variable("no address", "GOOGLE_GEMINI_BASE_URL", "host", "not an address", "gemini", GEMINI_API_KEY="a"),
    Command(
        "VLLM_API_KEY: a line break in it",
        ("caption", "rows.jsonl", "--base-url", CLOSED),
        "VLLM_API_KEY",
        "set it again",
        {"VLLM_API_KEY": "a\nb"},
    ),
    address("by ftp", "ftp://host/v1"),
    address("by file", "file:///etc/passwd"),
    address("no host", "http://"),
    address("no scheme", "localhost:8000"),
    address("a port that does not exist", "http://host:99999/v1"),
    address("half of an IPv6 address", "http://[::1/v1"),
    address("300,000 characters", "x" * LONG),
    address("a password in it", "http://me:secret@host/v1", "set the key in the environment"),
    address("a key in its query", "http://host/v1?api_key=secret", "set the key in the environment"),
    address("a key in its path", "http://host/sk-0123456789abcdef0123/v1", "set the key in the environment"),
    address("something behind a #", "http://host/v1#part", "never sent"),
    address("empty", "", "is empty"),
    t2i("unknown to the model", "--quality", "ultra", "supports low", OPENAI),
    t2i("unknown to the format", "--quality", "high", "does not support it", GEMINI),
    t2i("unknown to the model", "--background", "red", "supports transparent", OPENAI),
    t2i("unknown to the format", "--background", "opaque", "does not support it", GEMINI),
    t2i("unknown to the format", "--aspect-ratio", "16:9", "use --size", OPENAI),
    t2i("unknown to the format", "--resolution", "2K", "use --size", OPENAI),
    t2i("unknown to the model", "--aspect-ratio", "17:9", "supports", GEMINI),
    t2i("not of the grid", "--size", "100x100", "the nearest is", OPENAI),
    t2i("chosen by the service", "--format", "webp", "leave --format out", GEMINI),
    t2i("weights for a service", "--lora", "good.safetensors", "--backend local", OPENAI),
    t2i("weights for a service", "--transformer", "good.safetensors", "--backend local", OPENAI),
    t2i("for a service", "--compile", None, "--backend local", OPENAI),
    t2i("for a service", "--quantize", "8bit", "--backend local", OPENAI),
    t2i("for a service", "--cache", "first-block", "--backend local", GEMINI),
    t2i("for a service", "--profile", "profile-size.toml", "--backend local", OPENAI),
    t2i("for an unknown price", "--max-cost", "5", "the price of", (*OPENAI, "--model", "nonesuch")),
    t2i("empty", "--model", "", "is empty", OPENAI),
    t2i("for another task", "--model", "gpt-5-nano", "not for t2i", OPENAI),
    *(
        variable(f"wrong ({name})", "FASTGEN_SERVICES", f"services-{name}.toml", "docs/apis.md", OPENAI_API_KEY="a")
        for name in SERVICES
    ),
    variable("no such file", "FASTGEN_SERVICES", "nowhere.toml", "No such file", OPENAI_API_KEY="a"),
    variable("a folder", "FASTGEN_SERVICES", "model", "Is a directory", OPENAI_API_KEY="a"),
    variable("no TOML", "FASTGEN_SERVICES", "broken.toml", "docs/apis.md", OPENAI_API_KEY="a"),
    variable("not UTF-8 inside", "FASTGEN_SERVICES", "latin.toml", "save it as UTF-8", OPENAI_API_KEY="a"),
]
OTHERS = [
    Command("bench: an unknown task", ("bench", "paint"), "bench paint", "one of t2i"),
    Command("bench `--rounds`: zero", ("bench", "--model", "tiny", "--rounds", "0"), "--rounds", "from 1 to"),
    Command("bench `--rows`: negative", ("bench", "--model", "tiny", "--rows", "-1"), "--rows", "from 0 to"),
    Command(
        "bench `--only`: an unknown arm", ("bench", "--model", "tiny", "--only", "nonesuch"), "--only", "not an arm"
    ),
    Command("bench `--gpus`: two devices", ("bench", "--model", "tiny", "--gpus", "cpu:2"), "--gpus", "name one"),
    Command("bench `--synthetic`: unknown", ("bench", "--synthetic", "nonesuch"), "--synthetic", "one of flux-dev"),
    Command(
        "bench `--synthetic` with `--model`",
        ("bench", "--synthetic", "flux-dev", "--model", "tiny"),
        "--synthetic",
        "give one of them",
    ),
    Command("bench `--synthetic`: another task", ("bench", "edit", "--synthetic", "flux-dev"), "--synthetic", "t2i"),
    Command("bench `--steps`: of captions", ("bench", "caption", "--steps", "4"), "--steps", "does not apply"),
    Command("bench `--tune`: of captions", ("bench", "caption", "--tune"), "--tune", "t2i and edit only"),
    Command("bench `--vllm-command`: of images", ("bench", "--vllm-command", "vllm"), "--vllm-command", "not apply"),
    Command("bench `-o`: a file", ("bench", "--model", "tiny", "-o", "file"), "-o", "cannot write there"),
    Command("setup: something else", ("setup", "torch"), "setup torch", "there is only"),
    Command("demo `--count`: zero", ("demo", "--count", "0"), "--count", "from 1 to 12"),
    Command("demo `--count`: 13", ("demo", "--count", "13"), "--count", "from 1 to 12"),
    Command("demo `--seed`: negative", ("demo", "--seed", "-1"), "--seed", "from 0 to"),
    Command("demo `-o`: a file", ("demo", "-o", "file"), "-o", "cannot write there"),
    Command("init: a file", ("init", "file"), "init file", "Not a directory"),
    Command("dataflow: an unknown program", ("dataflow", "nonesuch"), "nonesuch", "No such command"),
    Command("check: no folder given", ("check",), "RUN", "Missing argument"),
    Command("check: no such folder", ("check", "nowhere"), "RUN", "give the folder of a run"),
    Command("check: a file", ("check", "file"), "RUN", "give the folder of a run"),
    Command("check: a folder that is no run", ("check", "model"), "RUN", "give the folder of a run"),
]
ROOMS = {
    "INPUT": INPUTS,
    "Flags": FLAGS,
    "Flags of captions": CAPTIONS,
    "Models and optimizations on this machine": LOCAL,
    "Files of weights": WEIGHTS,
    "Services": SERVICE,
    "Other commands": OTHERS,
}
