"""FLUX.2 klein (4B and 9B, distilled and base).

text.py      prompts -> hidden states of several layers of Qwen3
latents.py   noise, patches, positions; images -> reference latents
schedule.py  noise levels
forward.py   the transformer, from step to step
family.py    all of it as a `Family`
"""
