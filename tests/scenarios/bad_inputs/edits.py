"""Rows of edits: images, masks and fields that the engine meets, and lines that are no rows."""

from __future__ import annotations

from tests.scenarios.bad_inputs.case import LONG, Row

GOOD = {"image": "good.png", "prompt": "make it blue"}


def picture(kind: str, path: object, words: str, field: str = "image") -> Row:
    return Row(f"image: {kind}", {"image": path, "prompt": "make it blue"}, field, words)


def masked(kind: str, mask: object, words: str, field: str = "mask", **more: object) -> Row:
    return Row(f"mask: {kind}", {**GOOD, "mask": mask, **more}, field, words)


def value(kind: str, name: str, given: object, words: str, field: str = "") -> Row:
    return Row(f"`{name}`: {kind}", {**GOOD, name: given}, field or name, words)


def line(kind: str, raw: bytes, words: str, field: str = "") -> Row:
    return Row(f"line: {kind}", raw, field, words)


def good(kind: str, row: dict, words: str) -> Row:
    return Row(kind, row, "", words, done=True)


PICTURES = [
    picture("no such file", "missing.png", "no such file"),
    picture("no bytes", "empty.png", "is empty"),
    picture("a text", "text.png", "not an image"),
    picture("a web page", "page.png", "not an image"),
    picture("an archive", "archive.png", "not an image"),
    picture("a film", "film.png", "not an image"),
    picture("a pointer of Git LFS", "pointer.png", "not an image"),
    picture("an SVG", "drawing.svg", "not an image"),
    picture("a program in PostScript", "program.png", "a drawing in EPS"),
    picture("zeros", "zeros.png", "not an image"),
    picture("a PNG cut in its header", "header.png", "save it again"),
    picture("the signature of a PNG only", "signature.png", "not an image"),
    picture("a cut PNG", "cut.png", "cut short"),
    picture("a cut JPEG", "cut.jpg", "cut short"),
    picture("a cut WebP", "cut.webp", "save it again"),
    picture("a cut GIF", "cut.gif", "save it again"),
    picture("a cut BMP", "cut.bmp", "cut short"),
    picture("a cut TIFF", "cut.tiff", "save it again"),
    picture("a PNG with a hole in its data", "swapped.png", "save it again"),
    picture("a PNG with a wrong checksum", "checksum.png", "not an image"),
    picture("a PNG of 0x0 pixels", "no-pixels.png", "not an image"),
    picture("a PNG of 3,600 megapixels", "bomb.png", "megapixels"),
    picture("a PNG of 100.01 megapixels", "large.png", "megapixels"),
    picture("a PNG with 128 MiB of text", "text-bomb.png", "save it again"),
    picture("a file of more than 1 GiB", "sparse.png", "more than 1,024 MiB"),
    picture("a TIFF of floating-point pixels", "float.tiff", "floating-point"),
    picture("a TIFF of 32-bit values", "deep.tiff", "beyond 16 bits"),
    picture("a TIFF that refers to itself", "loop.tiff", "not an image"),
    picture("a shape of 40 to 1", "strip.png", "16 to 1"),
    picture("a folder", "folder.png", "is a folder"),
    picture("a pipe", "pipe.png", "not a regular file"),
    picture("a socket", "socket.png", "not a regular file"),
    picture("a link to a pipe", "link-to-pipe.png", "not a regular file"),
    picture("a link to a device", "link-to-device.png", "not a regular file"),
    picture("a link to nothing", "dangling.png", "no such file"),
    picture("a link to itself", "circle.png", "no such file"),
    picture("a device", "/dev/zero", "not a regular file"),
    picture("standard input", "/dev/stdin", "regular file"),
    picture("the memory of a process", "/proc/self/mem", "not a regular file"),
    picture("the environment of a process", "/proc/self/environ", "not a regular file"),
    picture("a file of the system", "/etc/passwd", "not an image"),
    picture("an empty path", "", "no image", "images"),
    picture("blanks", "   ", "the path is empty"),
    picture("a NUL in the path", "good.png\0", "NUL"),
    picture("a path of 300,000 characters", "A" * LONG, "no such file"),
    picture("data instead of a path", "data:image/png;base64," + "A" * LONG, "holds no picture"),
    picture("an address by https", "https://example.invalid/" + "a" * LONG, "cannot be fetched"),
    picture("an address in a private network", "http://169.254.169.254/latest/meta-data", "in a private network"),
    picture("an address by ftp", "ftp://example.com/a.png", "works offline"),
    picture("an address by file", "file:///etc/passwd", "not an image"),
    picture("an address of a file on another machine", "file://host/a.png", "works offline"),
    picture("an address of a bucket", "gs://bucket/a.png", "cannot be fetched"),
    picture("a path out of the folder", "../" * 50 + "etc/passwd", "leads out of"),
    picture("signs that a terminal obeys", "\x1b[2J\x07\r\n.png", "no such file"),
    picture("a path of Windows", ".\\good.png", "write it with /"),
    picture("half of a character", "half \ud83d.png", "half of a character"),
    picture("a name that is not UTF-8", "bad\udcff.png", "rename the file"),
    picture("17 images", ["good.png"] * 17, "17 images"),
    picture("a list in a list", [["good.png"]], "must be a string"),
    picture("null in a list", ["good.png", None], "must be a string"),
    picture("bytes of a dataset", {"bytes": "A" * LONG, "path": None}, "holds no picture"),
    picture("a number", 7, "must be a string"),
    picture("true", True, "must be a string"),
    good("image: a colour profile of junk", {**GOOD, "image": "profile.png"}, "colour profile cannot be read"),
]
MASKS = [
    masked("no such file", "missing.png", "no such file"),
    masked("a pipe", "pipe.png", "not a regular file"),
    masked("cut", "cut.png", "cut short"),
    masked("a folder", "folder.png", "is a folder"),
    masked("an address", "https://example.invalid/mask.png", "cannot be fetched"),
    masked("all black", "black.png", "selects nothing"),
    masked("all grey below the threshold", "grey.png", "selects nothing"),
    masked("another shape than its image", "wide-mask.png", "the shape of its image"),
    masked("transparency of unclear meaning", "hole.png", "could mean either"),
    masked("two masks", "black.png", "give only one of them", "mask_image", mask_image="white.png"),
    masked("an unknown convention", "white.png", "white_is_edited", "mask_convention", mask_convention="A" * LONG),
    masked("a number as convention", "white.png", "white_is_edited", "mask_convention", mask_convention=1),
    masked(
        "nothing transparent, but that is edited",
        "white.png",
        "only transparent pixels",
        mask_convention="transparent_is_edited",
    ),
    masked("an object", {"file": "white.png"}, "a path as a string"),
    masked("a list", ["white.png"], "must be a string"),
    good("mask: it selects everything", {**GOOD, "mask": "white.png"}, "the whole image"),
    good("mask: soft edges all over", {**GOOD, "mask": "soft.png"}, "pixels are grey"),
]
FIELDS = [
    value("300,000 characters", "prompt", "x" * LONG, "300,000 characters"),
    value("half of a character", "prompt", "half \ud83d", "half of a character"),
    value("nothing but the mark of an image", "prompt", "<image>", "no text from the user"),
    value("an object", "prompt", {"text": "a"}, "must be a string"),
    value("a list", "prompt", ["x" * LONG], "must be a string"),
    value("300,000 characters", "id", "x" * LONG, "1 to 512 characters"),
    value("an object", "id", {"a": "b"}, "string or a whole number"),
    value("half of a character", "id", "half \ud83d", "half of a character"),
    good("`id`: a path out of the folder", {**GOOD, "id": "../../etc/passwd"}, ""),
    value("5,000 digits", "size", "9" * 5000 + "x64", "1024x768"),
    value("300,000 characters", "size", "x" * LONG, "1024x768"),
    value("31 digits in a list", "size", [64, 10**30], "out of range"),
    value("4,001 digits", "steps", 10**4000, "out of range"),
    value("300,000 digits as text", "steps", "9" * LONG, "whole number"),
    value("a billion", "n", 10**9, "out of range"),
    value("negative", "seed", -1, "out of range"),
    value("NaN", "guidance", float("nan"), "out of range"),
]
LINES = [
    line("cut", b'{"image": "good.png", "prompt": "make', "not valid JSON"),
    line("not UTF-8", b'{"image": "good.png", "prompt": "caf\xe9"}', "UTF-8"),
    line("zeros", b"\0" * 100, "not valid JSON"),
    line("a list", b'["good.png", "make it blue"]', "a row is a JSON object"),
    line("a text with escapes", b'"\\u001b[2J' + b"x" * LONG + b'"', "a row is a JSON object"),
    line("a number", b"7", "a row is a JSON object"),
    line("null", b"null", "a row is a JSON object"),
    line("a line of CSV", b"good.png,make it blue", "not valid JSON"),
    line("Python instead of JSON", b"{'image': 'good.png', 'prompt': None}", "not valid JSON"),
    line("a comma too many", b'{"image": "good.png", "prompt": "make it blue",}', "not valid JSON"),
    line("a comment", b"// good.png", "not valid JSON"),
    line("two rows", b'{"image": "good.png", "prompt": "a"}{"image": "good.png", "prompt": "b"}', "not valid JSON"),
    line("100,000 brackets", b"[" * 100_000, "not valid JSON"),
    line(
        "100,000 brackets in a field",
        b'{"prompt": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "not valid JSON",
    ),
    line("100,000 digits", b'{"prompt": "a", "x": ' + b"9" * 100_000 + b"}", "not valid JSON"),
    line("65 MiB", b'{"prompt": "' + b"x" * (65 << 20) + b'"}', "longer than 64 MiB"),
]
CASES = [*PICTURES, *MASKS, *FIELDS, *LINES]
