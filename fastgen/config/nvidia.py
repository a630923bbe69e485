"""Which NVIDIA cards this machine has, and which of them cannot be used, by the driver's own tool: this process never
starts CUDA. Does not know CUDA_VISIBLE_DEVICES or flags.

A machine that evidently has a GPU but cannot use it is an error, so that no run silently becomes one on the CPU.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fastgen.errors import SettingsError

TOOL = "nvidia-smi"
DEVICES = Path("/dev")
QUERY = "index,uuid,name,memory.total,compute_cap,driver_version,mig.mode.current"
WAIT_S, WAIT_FOR_ONE_S = 60.0, 20.0
"""Without its persistence mode the driver starts every card for this, which can take seconds."""
MOST_CARDS = 64
SLICE_SHARE = 0.95
"""Of the GB in the name of a MIG profile, this much is usable memory in GiB at least (1g.5gb of an A100: 4.75)."""
NO_CARD_WORKS = {
    "driver/library version mismatch": "The driver was updated while it was in use: restart the machine",
    "couldn't communicate": "Install the NVIDIA driver or load its kernel module",
    "no devices were found": "The driver sees no GPU: restart the machine, or its container with --gpus all",
    "failed to initialize nvml": "Start the container with --gpus all, or restart the machine",
    "insufficient permissions": "Give this user access to /dev/nvidia*",
}
"""What the tool says if no card can be used -> what to do."""
_BROKEN = re.compile(r"\[(?!N/A|Not Supported|Insufficient)[^\]]+\]")
_CARD = re.compile(r"GPU (\d+): .*\(UUID: (GPU-[\w-]+)\)")
_SLICE = re.compile(r"\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-[\w/-]+)\)")


class Card(msgspec.Struct, frozen=True):
    """A card, or a MIG slice of one."""

    index: int
    """The tool's number; that of the card for a slice."""
    uuid: str
    name: str
    memory_gib: float
    """0.0 if the driver does not report it, as for memory that is shared with the CPU."""
    compute_capability: str
    driver: str = ""
    """The version of the driver."""
    problem: str = ""
    """Why it cannot be used; "" if it can."""
    slices: tuple[Card, ...] = ()


def evidence() -> str:
    """What shows that this machine has an NVIDIA GPU, or had one; "" if nothing does. Asks no driver."""
    device = next(iter(sorted(DEVICES.glob("nvidia[0-9]*"))), None)
    return str(device) if device else TOOL if shutil.which(TOOL) else ""


def find_cards() -> list[Card]:
    """All cards, in the tool's order; [] on a machine without NVIDIA GPUs.

    Raises:
        SettingsError: there evidently are some, and none can be used; the message ends in a fix.
    """
    found = evidence()
    if not found:
        return []
    if not shutil.which(TOOL):
        raise SettingsError(
            f"this machine has a GPU ({found}), but {TOOL} is not there to ask about it. Put it on PATH (it comes with "
            "the driver; a container gets it with NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
        )
    code, text = _ask(f"--query-gpu={QUERY}", "--format=csv,noheader,nounits")
    cards = list(_cards(text))
    if not code and cards:
        return _with_slices(cards)
    said = _said(text)
    if "is not a valid field" in text:
        raise SettingsError(f"the NVIDIA driver is too old: {TOOL} says {said!r}. Update the driver")
    fix = next((fix for words, fix in NO_CARD_WORKS.items() if words in text.lower()), "")
    about_one = cards or "device handle" in text or "is lost" in text
    cards = list(_one_by_one()) if about_one and not fix else []
    if any(not card.problem for card in cards):
        return _with_slices(cards)
    said = "; ".join(f"GPU {card.index}: {card.problem}" for card in cards) or said
    fix = fix or f"Run {TOOL} and fix what it reports, or restart the machine"
    raise SettingsError(f"{TOOL} is here but fails (exit code {code}): {said or 'it says nothing'}. {fix}")


def _one_by_one() -> Iterator[Card]:
    """One lost card can make the query for all of them fail."""
    for index in range(MOST_CARDS):
        code, text = _ask(f"--id={index}", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits", wait=WAIT_FOR_ONE_S)
        if "no devices were found" in text.lower():
            return
        card = next(_cards(text), None)
        yield card if card and not code else _unusable(index, _said(text) or f"exit code {code}")


def _cards(text: str) -> Iterator[Card]:
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < 5 or not cells[0].isdigit():
            continue
        index, uuid, name, memory, capability = cells[:5]
        driver, mig = (*cells[5:7], "", "")[:2]
        if broken := _BROKEN.search(line):
            yield _unusable(int(index), broken.group().strip("[]"))
        else:
            problem = "MIG is on, and it has no slice" if mig == "Enabled" else ""
            yield Card(int(index), uuid, name, gib(memory), capability, driver, problem)


def _unusable(index: int, problem: str) -> Card:
    return Card(index, "", "", 0.0, "", problem=problem)


def _with_slices(cards: list[Card]) -> list[Card]:
    """The cards with their MIG slices."""
    if not any("MIG" in card.problem for card in cards):
        return cards
    _, text = _ask("--list-gpus")
    slices: dict[str, list[Card]] = {card.uuid: [] for card in cards}
    card = None
    for line in text.splitlines():
        if head := _CARD.match(line):
            card = next((one for one in cards if one.uuid == head[2]), None)
        elif card is not None and (part := _SLICE.match(line)):
            profile, _, uuid = part.groups()
            size = re.search(r"(\d+)gb", profile)
            memory = round(int(size[1]) * SLICE_SHARE, 1) if size else 0.0
            name = f"{card.name} MIG {profile}"
            slices[card.uuid].append(Card(card.index, uuid, name, memory, card.compute_capability, card.driver))
    return [
        msgspec.structs.replace(card, problem="", slices=tuple(slices[card.uuid])) if slices[card.uuid] else card
        for card in cards
    ]


def _ask(*arguments: str, wait: float = WAIT_S) -> tuple[int, str]:
    """Exit code and output of the tool."""
    try:
        done = subprocess.run([TOOL, *arguments], capture_output=True, text=True, errors="replace", timeout=wait)
    except subprocess.TimeoutExpired:
        return -1, f"no answer within {wait:.0f} s"
    except OSError as error:
        return -1, f"it cannot be started: {error.strerror}"
    return done.returncode, done.stdout + done.stderr


def _said(text: str) -> str:
    """The first line that is not about a card."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not re.match(r"\d+,", line)), "")[:300].rstrip(".")


def gib(mib: str) -> float:
    """0.0 if the driver does not report it."""
    return round(float(mib) / 1024, 1) if mib.replace(".", "").isdigit() else 0.0
