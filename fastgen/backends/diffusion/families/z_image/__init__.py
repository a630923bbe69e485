"""Z-Image (turbo and base).

text.py      prompts -> hidden states of Qwen3, each at its own length
latents.py   noise, patches; images -> latents
forward.py   the transformer, from step to step
family.py    all of it as a `Family`
"""
