"""A loopback server that speaks the OpenAI and the Gemini format, for tests with the vendors' own clients.

    with Simulator(latency_s=0.1, slots=8) as sim:
        openai.OpenAI(base_url=sim.openai_url, api_key="test-key")
        genai.Client(api_key="test-key", http_options={"base_url": sim.gemini_url})

It decodes and checks every picture, refuses what the services refuse, draws answers that depend on the prompt, on each
picture and on the mask, bills them, and fails on command (faults.py says how). `python -m tests.simulator --help` runs
it as a process of its own.
"""

from tests.simulator.faults import Faults
from tests.simulator.records import Recorded, Seen
from tests.simulator.server import Simulator

__all__ = ["Faults", "Recorded", "Seen", "Simulator"]
