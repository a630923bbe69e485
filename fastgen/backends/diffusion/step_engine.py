"""Samples in, latents out: `submit` a sample, and `step` until its future is done. Does not know batches, threads or
the architecture.

diffusers' pipelines step a whole batch in lockstep. Here a sample joins a group at any step, whichever batch it came
with, and leaves it after its own last step. Which samples may share a forward pass is the family's answer
(`Family.key`). They are taken in the order in which they came, so none waits for ever.

A stream is a group that is stepped by one thread at a time. Streams share the waiting samples evenly: on a CPU each has
some of the cores.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from fastgen.backends.diffusion import progressive
from fastgen.backends.diffusion.clock import Clock, Span
from fastgen.backends.diffusion.family import Family, Sample
from fastgen.backends.diffusion.graphs import StepGraphs
from fastgen.backends.diffusion.group import Group, Member
from fastgen.backends.diffusion.memory import Room
from fastgen.backends.diffusion.own_streams import OwnStreams
from fastgen.config.device_errors import device_fault, is_out_of_memory
from fastgen.opt.offload import onload

log = logging.getLogger(__name__)
AHEAD = 2
"""Steps that are enqueued before the device has reached them, while a place in the group is free: what comes in the
meantime can only join behind them."""


@dataclass(eq=False)
class _Ticket:
    """A sample that was submitted."""

    sample: Sample
    key: Hashable
    clock: Clock | None
    future: Future = field(default_factory=Future)
    member: Member | None = None
    """From its first step on."""
    alone: bool = False
    """Whether it shares no pass, because one that it shared failed."""


class _Stream:
    """The group that one thread steps."""

    def __init__(self, own: OwnStreams) -> None:
        self.own = own
        """Where its steps are enqueued."""
        self.tickets: list[_Ticket] = []
        """Its samples."""
        self.group: Group | None = None
        """None where they are to be grouped anew."""
        self.ahead: deque[Span] = deque(maxlen=AHEAD)
        """The latest steps; the device may not have done them yet."""


@dataclass
class Counts:
    """What the engine did since it was last asked."""

    passes: int = 0
    """Forward passes."""
    pass_samples: int = 0
    """Samples in them, together."""
    joins: int = 0
    """Samples that joined others who had already taken steps."""


class StepEngine:
    """Args:
    room: how many samples fit into a forward pass.
    streams: groups that are stepped side by side.
    form: makes a group of these members; `ranks.Lead.group` where several processes step it together.
    apart: whether each stream has a thread, and the device's streams, of its own: where a step makes the host wait and
        others could go on meanwhile.
    blames: whether the samples of a pass that failed are tried again, each alone, so that only the cause fails: where
        they are of different rows.
    """

    def __init__(
        self,
        family: Family,
        room: Room,
        streams: int = 1,
        graphs: StepGraphs | None = None,
        form: Callable[[Family, list[Member], StepGraphs | None], Group] = Group,
        apart: bool = False,
        blames: bool = True,
    ):
        self.family = family
        self.room = room
        self.wake: Callable[[], None] = lambda: None
        """Called when a sample was submitted: someone should step."""
        self.graphs = graphs or (StepGraphs() if family.modules.cuda_graphs else None)
        self._group = form
        self._blames = blames
        devices = family.modules.devices if apart else ()
        self._streams = [_Stream(OwnStreams(devices)) for _ in range(streams)]
        self._waiting: deque[_Ticket] = deque()
        self._lock = threading.Lock()
        """For the waiting samples, the members of all streams and the counts."""
        self._counts = Counts()

    def submit(self, sample: Sample, clock: Clock | None = None) -> Future:
        """A future that is done when the sample has its `latents`; it may have an error instead. From any thread.

        Args:
            clock: gets the sample's share of the device's time as stage "denoise".
        Raises, in the future:
            OutOfMemory: the sample does not fit alone.
        """
        return self.submit_all([sample], clock)[0]

    def submit_all(self, samples: Iterable[Sample], clock: Clock | None = None) -> list[Future]:
        """As `submit`. No step begins with only some of them."""
        first = [progressive.beginning(self.family, sample) or sample for sample in samples]
        tickets = [_Ticket(sample, self.family.key(sample), clock) for sample in first]
        with self._lock:
            self._waiting.extend(tickets)
        for _ in tickets:
            self.wake()
        return [ticket.future for ticket in tickets]

    def has_work(self, stream: int = 0) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._streams[stream].tickets or self._waiting)

    @torch.inference_mode()
    def step(self, stream: int = 0) -> None:
        """Let waiting samples join the stream's group, and enqueue one step of it. Nothing if there are none. One
        thread at a time may call it for a stream. It raises nothing: errors are in the futures."""
        now = self._streams[stream]
        error: Exception | None = None
        full = False
        try:
            self._join(now)
            if now.tickets:
                self._take_step(now)
        except Exception as raised:
            full = is_out_of_memory(raised)
            error = None if full else raised
        # Only here, where the error is gone and with it the tensors of the failed pass, is their memory free.
        if full:
            self._make_room(now)
        elif error is not None:
            self._find_cause(now, error)

    def run(self, samples: Iterable[Sample]) -> None:
        """Give every sample its `latents` here and now, apart from all others.

        Raises:
            OutOfMemory: not even one sample fits.
        """
        alone = StepEngine(self.family, self.room, graphs=self.graphs, form=self._group, blames=False)
        futures = alone.submit_all(samples)
        while alone.has_work():
            alone.step()
        for future in futures:
            future.result()

    def take_counts(self) -> Counts:
        """What was done since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counts()
        return counts

    def _join(self, stream: _Stream) -> None:
        """Samples come in while there is room. If any does, the group is formed anew."""
        is_full, joining = self._take(stream)
        if not is_full and not joining and len(stream.ahead) == AHEAD:
            stream.ahead.popleft().wait()  # who comes soon should find the place still free
            _, joining = self._take(stream)
        if joining and stream.group is not None:
            self._dissolve(stream.group, stream)

    def _take(self, stream: _Stream) -> tuple[bool, list[_Ticket]]:
        """Let waiting samples in. Returns whether the stream is full, and those who came."""
        with self._lock:
            first = next(iter(stream.tickets or self._waiting), None)
            if first is None:
                return False, []
            together = len(self._waiting) + sum(len(other.tickets) for other in self._streams)
            share = -(-together // len(self._streams))
            joining: list[_Ticket] = []
            while len(stream.tickets) + len(joining) < share and self._waiting:
                if not self._fit([*stream.tickets, *joining, self._waiting[0]]):
                    break
                joining.append(self._waiting.popleft())
            if any(ticket.member is not None and ticket.member.left for ticket in stream.tickets):
                self._counts.joins += len(joining)
            stream.tickets += joining
            return not self._fit([*stream.tickets, first]), joining

    def _fit(self, tickets: list[_Ticket]) -> bool:
        """Whether they may share a forward pass."""
        if len(tickets) > 1 and any(ticket.alone or ticket.key != tickets[0].key for ticket in tickets):
            return False
        return self.room.fit([ticket.sample for ticket in tickets])

    def _take_step(self, stream: _Stream) -> None:
        with Span(self.family.modules.device) as span, onload(self.family.modules, "transformer"):
            if stream.group is None:
                stream.group = self._form(stream.tickets)
                stream.own.begin()
            with stream.own.inside():
                stream.group.step()
                span.end()
        self._took_step(stream, span)

    def _form(self, tickets: list[_Ticket]) -> Group:
        members = []
        for ticket in tickets:
            ticket.member = ticket.member or Member(self.family, ticket.sample)
            members.append(ticket.member)
        return self._group(self.family, members, self.graphs)

    def _took_step(self, stream: _Stream, span: Span) -> None:
        """Count, share the time, and let those go who took their last step."""
        stream.ahead.append(span)
        clocks = Counter(ticket.clock for ticket in stream.tickets if ticket.clock is not None)
        for clock, count in clocks.items():
            clock.share("denoise", span, count / len(stream.tickets))
        with self._lock:
            self._counts.passes += 1
            self._counts.pass_samples += len(stream.tickets)
        assert stream.group is not None
        if stream.group.is_over:
            left = self._dissolve(stream.group, stream)
            done = [ticket for ticket in stream.tickets if ticket.member not in left]
            self._grow(stream, [ticket for ticket in done if ticket.sample.whole is not None])
            self._end(stream, [ticket for ticket in done if ticket in stream.tickets])

    def _grow(self, stream: _Stream, tickets: list[_Ticket]) -> None:
        """These small images have taken their steps: they wait, before all others, for a group of their full size."""
        for ticket in tickets:
            ticket.sample, ticket.member = progressive.grown(self.family, ticket.sample), None
            ticket.key = self.family.key(ticket.sample)
        with self._lock:
            stream.tickets = [ticket for ticket in stream.tickets if ticket not in tickets]
            self._waiting.extendleft(reversed(tickets))
        for _ in tickets:
            self.wake()

    def _dissolve(self, group: Group, stream: _Stream) -> list[Member]:
        """Returns the samples that have steps left."""
        stream.own.end()
        group.x = stream.own.brought_out(group.x)
        stream.group = None
        return group.dissolve()

    def _make_room(self, stream: _Stream) -> None:
        """The memory is full: fewer samples share a pass from now on, and those of this one begin again."""
        tickets, stream.group = stream.tickets, None
        try:
            stream.own.end()
            largest = max((ticket.sample for ticket in tickets), key=lambda sample: sample.width * sample.height)
            self.room.shrink(largest, len(tickets), "denoising")
        except Exception as error:  # not even one fits, or the device has failed
            self._end(stream, tickets, error)
        else:
            self._begin_again(stream)

    def _find_cause(self, stream: _Stream, error: Exception) -> None:
        """A pass failed, and one of its samples may be the cause: each begins again, alone. Who is alone fails."""
        tickets, stream.group = stream.tickets, None
        try:
            stream.own.end()
        except Exception as fault:  # the device has failed
            error = fault
        if not self._blames or len(tickets) == 1 or device_fault(error):
            self._end(stream, tickets, error)
            return
        log.warning("a pass of %d samples failed; each of them is tried alone", len(tickets), exc_info=error)
        error.with_traceback(None)  # it holds the tensors of the pass
        for ticket in tickets:
            ticket.alone = True
        self._begin_again(stream)

    def _begin_again(self, stream: _Stream) -> None:
        tickets = stream.tickets
        for ticket in tickets:
            ticket.member = None
        with self._lock:
            stream.tickets = []
            self._waiting.extendleft(reversed(tickets))

    def _end(self, stream: _Stream, tickets: list[_Ticket], error: BaseException | None = None) -> None:
        """These samples leave."""
        with self._lock:
            stream.tickets = [ticket for ticket in stream.tickets if ticket not in tickets]
        for ticket in tickets:
            if error is None:
                ticket.future.set_result(None)
            else:
                ticket.future.set_exception(error)


def denoise(family: Family, samples: Iterable[Sample], most: int) -> None:
    """Give every sample its `latents`, at most so many in a forward pass."""
    StepEngine(family, Room(family, lambda pixels: most)).run(samples)
