"""Why there is no answer that can be used: what http_client.py raises. What that means for a row is said in
responses.py."""

from __future__ import annotations

from fastgen.types import Kind


class Fault(Exception):
    """There is no answer that can be used."""

    kind: Kind = "unavailable"
    paid = True
    """Whether the service may have done the work, and billed it."""


class NoAnswer(Fault):
    """Nobody answered, or not to the end."""

    def __init__(self, message: str, paid: bool):
        super().__init__(message)
        self.paid = paid


class TooLarge(Fault):
    kind = "unsupported"  # it would be so again, and is paid for


class Unreadable(Fault):
    kind = "malformed"


class Moved(Fault):
    kind = "gone"
    paid = False


class NotFetched(Fault):
    """A picture is not to be had from the address in an answer."""

    kind = "unsupported"
    paid = False  # the answer was, and is counted

    def __init__(self, message: str, again: bool = False):
        super().__init__(message)
        self.again = again
        """Whether another try may help."""
