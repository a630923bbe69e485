"""Why there is no usable answer: the exceptions of http_client.py. What they mean for a row is in responses.py."""

from __future__ import annotations

from fastgen.types import Kind


class Fault(Exception):
    """There is no usable answer."""

    kind: Kind = "unavailable"
    paid = True
    """Whether the service may have done the work and billed it."""


class NoAnswer(Fault):
    """There was no answer, or it was incomplete."""

    def __init__(self, message: str, paid: bool, begun: bool = False):
        super().__init__(message)
        self.paid = paid
        self.begun = begun
        """Whether an answer had begun, so that the service is there."""


class TooLarge(Fault):
    kind = "unsupported"  # another try would give the same, and this one is paid for


class Unreadable(Fault):
    kind = "malformed"


class Moved(Fault):
    kind = "gone"
    paid = False


class NotFetched(Fault):
    """An image cannot be fetched from the address in an answer."""

    kind = "unsupported"
    paid = False  # the answer itself was billed, and is counted

    def __init__(self, message: str, again: bool = False):
        super().__init__(message)
        self.again = again
        """Whether another try may help."""
