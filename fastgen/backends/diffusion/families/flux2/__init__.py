"""FLUX.2: klein (4B and 9B, distilled and base) and dev.

text.py      prompts -> hidden states of several layers of Qwen3; of dev of Mistral Small
latents.py   noise, patches, positions; images -> reference latents
schedule.py  noise levels
forward.py   the transformer, from step to step
family.py    all of it as a `Family`
dev.py       the same for FLUX.2-dev
kept.py      the same for klein whose references are read once
"""
