"""For mkdocs: links out of docs/, which lead to files of the repository, become plain text in the site."""

import re


def on_page_markdown(markdown: str, **_: object) -> str:
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)
