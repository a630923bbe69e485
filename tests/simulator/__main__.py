"""The simulator as a process of its own, so that its CPU time is not the client's.

`GET /_sim/state` on either port tells the numbers, `POST /_sim/reset` sets them and the storm's clock to zero.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading

from tests.simulator import Faults, Simulator
from tests.simulator.faults import NAMES


def main() -> None:
    parse = argparse.ArgumentParser("python -m tests.simulator", description=__doc__)
    parse.add_argument("--port", type=int, default=0)
    parse.add_argument("--gemini-port", type=int, default=0)
    parse.add_argument("--host", default="127.0.0.1")
    parse.add_argument("--latency", type=float, default=0.0, metavar="S")
    parse.add_argument("--slots", type=int, default=0, help="requests at once; more get 429 (0: unlimited)")
    parse.add_argument("--queue", action="store_true", help="what exceeds the slots waits instead")
    parse.add_argument("--rate", type=float, nargs=2, metavar=("PER_S", "BURST"))
    parse.add_argument("--retry-after", type=float, default=1.0, metavar="S")
    parse.add_argument("--hang", type=float, default=60.0, metavar="S")
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--share", type=float, default=0.0, help="share of requests that are made to fail")
    parse.add_argument("--faults", default="", help=f"names to draw from, with commas: {', '.join(NAMES)}")
    parse.add_argument("--by", choices=("attempt", "prompt", "number"), default="attempt")
    parse.add_argument("--storm", type=float, nargs=2, metavar=("T0", "T1"), help="seconds after the start: all 429")
    parse.add_argument("--key", action="append", help="an accepted key (default: test-key)")
    parse.add_argument("--model", action="append", default=[], help="a further model id that is known")
    parse.add_argument("--fast", action="store_true", help="read nothing of a request, answer a constant caption")
    parse.add_argument("--threads", type=int, default=4)
    given = parse.parse_args()
    names = [name for name in given.faults.split(",") if name]
    faults = Faults(given.share, names, given.seed, given.by, tuple(given.storm) if given.storm else None)
    ended = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: ended.set())
    with Simulator(
        latency_s=given.latency,
        slots=given.slots,
        queue=given.queue,
        rate=tuple(given.rate) if given.rate else None,
        seed=given.seed,
        faults=faults,
        keys=set(given.key or ["test-key"]),
        models=set(given.model),
        hang_s=given.hang,
        retry_after_s=given.retry_after,
        fast=given.fast,
        record=False,
        threads=given.threads,
        host=given.host,
        port=given.port,
        gemini_port=given.gemini_port,
    ) as sim:
        print(json.dumps({"openai": sim.openai_url, "gemini": sim.gemini_url}), flush=True)
        ended.wait()
        print(json.dumps(sim.state()), flush=True)


if __name__ == "__main__":
    main()
