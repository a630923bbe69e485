"""What a run folder has cost, and what may still be spent: reserved before a request goes out, settled when it is over.

Both are written at once, so that requests in flight at a kill can be counted: nobody can tell whether they were billed.
Each line has a checksum, a number and the total so far, including reservations:

    {"crc":"1a2b3c4d","rec":{"id":"row-7","reserved":0.04,"number":12,"total":1.24}}

so a damaged or missing line shows at the next one, and only its details are lost. If lines are missing at the end, the
results in the journal, and run.json, say how much was spent at least. The file exists only if something costs money.

A request without an answer counts as its upper bound. When the same request is answered later, that tells what the lost
one cost, and a line corrects the sum.
"""

from __future__ import annotations

import errno
import math
import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from fastgen.errors import DiskError
from fastgen.output import sent
from fastgen.output.journal import checked, with_checksum

SPENDING = "spending.jsonl"
_SAME = 1e-6
"""USD. Sums that differ by less are equal; they were added in another order."""


class Entry(msgspec.Struct, omit_defaults=True):
    id: str = ""
    """The row; "" if it belongs to none."""
    reserved: float = 0.0
    """Maximum USD, before the request."""
    spent: float | None = None
    """Actual USD after it; this ends the reservation."""
    number: int = 0
    """The number of the line, from 1; 0 in files of older versions."""
    total: float = 0.0
    """USD spent and reserved so far, including this line; only together with the number."""
    why: str = ""
    """The reason of an entry without an answer."""
    ask: str = ""
    """What was asked for: requests of a row with the same `ask` cost the same. "" if that is not known."""
    run: str = ""
    """With a reservation: the name of the file that says whether it was sent (see output/sent.py)."""
    unknown: float = 0.0
    """The part of `spent` that may not have been billed, because no answer came."""
    durable: bool = False
    """With a reservation: the request outlives the run, and a later one gets its answer."""
    receipt: str = ""
    """What `spent` is for. It is booked once."""
    replaces: bool = False
    """`spent` is the difference to what earlier entries of this row, with this `ask` and without an answer, counted."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


class Ledger:
    """Args: limit: USD for this folder over all its runs; 0 for no limit.
    floor: USD that the folder's results cost, or that an earlier run reported; at least this much was spent.
    dearest: USD of the most expensive of them.
    marked: whether workers record what they send (see output/sent.py).
    """

    def __init__(self, folder: Path, limit: float, floor: float = 0.0, dearest: float = 0.0, marked: bool = False):
        self.path = folder / SPENDING
        self.limit = limit
        self.spent = 0.0
        self.unknown = 0.0
        """The part of `spent` for requests without an answer, which may or may not have been billed."""
        self.warnings: list[str] = []
        """Notes for the user about the file."""
        self._open: dict[str, Entry] = {}
        """Reservations, by row."""
        self._lost: dict[str, list[Entry]] = {}
        """Entries without an answer whose true cost may still be learned, by row."""
        self._receipts: set[int] = set()
        """Hashes of all receipts."""
        self._run: str | None = None if marked else ""
        """The name of this run's file of marks; None before the first reservation."""
        self._file, self._end, self._number = -1, 0, 0
        self._unwritten: list[Entry] = []
        """Entries that could not be written to a full disk."""
        self._dirty, self._synced = False, time.monotonic()
        there = self.path.exists()
        if there:
            self._replay(dearest)
        if self.spent < floor - _SAME:
            known = f"holds {self.spent:.4f} USD" if there else "is missing"
            self.warnings.append(f"{self.path} {known}, but the results cost {floor:.4f} USD, which is what counts")
            self._note(Entry(spent=floor - self.spent, why="the results, or run.json, say more than all lines here"))

    @property
    def reserved(self) -> float:
        return sum(entry.reserved for entry in self._open.values())

    @property
    def left(self) -> float:
        """USD that may still be reserved."""
        return self.limit - self.spent - self.reserved if self.limit else math.inf

    def holds(self, id: str, ask: str) -> bool:
        """Whether the cost of this request is reserved, by this run or, if it is durable, an earlier one."""
        held = self._open.get(id)
        return held is not None and held.durable and held.ask == ask

    def afford(self, most: dict[str, float], asks: dict[str, str] | None = None, durable: bool = False) -> bool:
        """Reserve the maximum cost of requests, by id. Returns False, and reserves nothing, if that could exceed the
        limit. Raises DiskError.

        Args:
            asks: what is asked for, by id; see `Entry.ask`.
            durable: the requests outlive this run, and with them their reservations: those that are there are not made
                again.
        """
        if durable:
            most = {id: usd for id, usd in most.items() if not self.holds(id, (asks or {}).get(id, ""))}
        if self.limit and self.spent + self.reserved + sum(most.values()) > self.limit:
            return False
        self._flush()
        if durable:
            for id in most.keys() & self._open.keys():  # the row has changed: what was asked before may be billed too
                self.settle(id, None)
        elif most and self._run is None:
            self._run = sent.begin(self.path.parent)
        for number, (id, usd) in enumerate(most.items()):
            ask = (asks or {}).get(id, "")
            run = "" if durable else self._run or ""
            entry = Entry(id, reserved=usd, ask=ask, run=run, durable=durable)
            entry = self._numbered(entry, self._total + usd)
            try:
                self._append(entry)
            except DiskError:
                self._number -= 1
                for before in list(most)[:number]:
                    self.settle(before, 0.0)
                raise
            self._apply(entry)
        return True

    def settle(self, id: str, cost: float | None, receipt: str = "") -> float:
        """End a reservation. If the disk is full, that is no reason to stop here, because the reservation still counts.

        Args:
            cost: USD; None: unknown, so the whole reservation counts.
            receipt: what the cost is for; nothing is counted if it is known.
        Returns:
            The USD that are counted.
        """
        held = self._open.get(id, Entry())
        if receipt and hash(receipt) in self._receipts:
            cost = 0.0
        usd = held.reserved if cost is None else cost
        if cost is None and usd:
            why = "no answer came; it may have been billed"
            self._note(Entry(id, spent=usd, why=why, ask=held.ask, unknown=usd))
        elif held.reserved or usd:
            self._note(Entry(id, spent=usd, receipt=receipt))
        return usd

    def has_lost(self, id: str) -> bool:
        """Whether `learn` may have something to correct for a row."""
        return id in self._lost

    def learn(self, id: str, ask: str, usd: float) -> None:
        """The same request as one without an answer is known to cost at most this, so that one does not count as more.

        Args:
            ask: as it was given to `afford`.
        """
        lost = [entry for entry in self._lost.get(id, ()) if entry.ask == ask]
        if lost:
            more = round(len(lost) * usd - sum(entry.spent or 0.0 for entry in lost), 8)
            why = f"{len(lost)} without an answer counted as their upper bound; now the cost is known"
            self._note(Entry(id, spent=more, why=why, ask=ask, unknown=more, replaces=True))

    def sync(self, at_most_every_s: float = 0.0) -> None:
        """Make everything durable, unless that was done within this many seconds. Raises DiskError."""
        self._flush()
        if not self._dirty or time.monotonic() - self._synced < at_most_every_s:
            return
        try:
            os.fsync(self._file)
        except OSError as error:
            raise DiskError(f"cannot write {self.path}: {error.strerror}") from None
        self._dirty, self._synced = False, time.monotonic()

    def close(self) -> None:
        if self._file >= 0:
            with suppress(DiskError):  # the reservation was written, and counts
                self.sync()
            os.close(self._file)
            self._file = -1
        if self._run and all(held.durable for held in self._open.values()):
            sent.end(self.path.parent)

    # The file

    def _replay(self, largest: float) -> None:
        """Add up the file. Its last total is right, whatever happened to the lines before it."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # the normal trace of a power cut
        self._end = sum(map(len, lines))
        damaged = missing = unclear = 0
        for line in lines:
            entry = _read(line)
            if entry is None:
                damaged += 1
                unclear += 1
                continue
            self._apply(entry)
            largest = max(largest, entry.reserved, entry.spent or 0.0)
            if not entry.number:
                continue
            missing += entry.number != self._number + unclear + 1
            if unclear or entry.number != self._number + 1:  # what was open before is unknown
                self._open = {entry.id: entry} if entry.spent is None else {}
                self._lost = {}
            self.spent = entry.total - self.reserved
            self._number, unclear = entry.number, 0
        self.spent += unclear * largest  # no total covers these; each was at most the largest
        wrong = [f"{damaged} lines are damaged"] * bool(damaged) + ["lines are missing or doubled"] * bool(missing)
        if wrong:
            self.warnings.append(
                f"{self.path}: {' and '.join(wrong)}; including what they may have been about, {self._total:.4f} USD "
                "count as spent"
            )
        self._settle_leftovers()

    def _settle_leftovers(self) -> None:
        """Count what was sent before a run was killed as billed."""
        marks = {run: sent.read(self.path.parent, run) for run in {entry.run for entry in self._open.values()}}
        before = self.unknown
        count = 0
        for id, held in list(self._open.items()):
            if held.durable:
                continue  # its answer comes to this run
            found = marks[held.run]
            if found is not None and id not in found:
                self._note(Entry(id, spent=0.0, why="the run was killed before it was sent"))
                continue
            why = "in flight when the run was killed; it may have been billed"
            self._note(Entry(id, spent=held.reserved, why=why, ask=held.ask, unknown=held.reserved))
            count += 1
        if count:
            self.warnings.append(
                f"{count} requests were in flight when the earlier run was killed; they may have been billed, so "
                f"{self.unknown - before:.4f} USD count as spent for them"
            )
        if not self._unwritten:
            sent.end(self.path.parent)

    @property
    def _total(self) -> float:
        return self.spent + self.reserved

    def _apply(self, entry: Entry) -> None:
        if entry.spent is None:
            before = self._open.get(entry.id, Entry())
            self._open[entry.id] = msgspec.structs.replace(entry, reserved=before.reserved + entry.reserved)
            return
        self._open.pop(entry.id, None)
        if entry.receipt:
            self._receipts.add(hash(entry.receipt))
        self.spent += entry.spent
        self.unknown += entry.unknown
        if entry.replaces:
            left = [one for one in self._lost.pop(entry.id, ()) if one.ask != entry.ask]
            if left:
                self._lost[entry.id] = left
        elif entry.unknown and entry.ask:
            self._lost.setdefault(entry.id, []).append(entry)

    def _numbered(self, entry: Entry, total: float) -> Entry:
        self._number += 1
        return msgspec.structs.replace(entry, number=self._number, total=round(total, 8))

    def _note(self, entry: Entry) -> None:
        """What happened counts, even if it cannot be written now."""
        self._apply(entry)
        self._unwritten.append(self._numbered(entry, self._total))
        with suppress(DiskError):
            self._flush()

    def _flush(self) -> None:
        """Raises DiskError."""
        while self._unwritten:
            self._append(self._unwritten[0])
            self._unwritten.pop(0)

    def _append(self, entry: Entry) -> None:
        """Write one line completely or not at all. Raises DiskError."""
        line = with_checksum(_encode(entry))
        try:
            if self._file < 0:
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
                os.ftruncate(self._file, self._end)
            written = os.pwrite(self._file, line, self._end)
            if written < len(line):
                os.ftruncate(self._file, self._end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise DiskError(f"cannot write {self.path}: {error.strerror}") from None
        self._end += len(line)
        self._dirty = True


def _read(line: bytes) -> Entry | None:
    """The entry on a line; None if it is damaged. Lines from versions without checksums are plain entries."""
    body = checked(line) if line.startswith(b'{"crc"') else line
    try:
        return None if body is None else _decode(body)
    except msgspec.DecodeError:
        return None
