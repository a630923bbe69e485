"""Chroma: FLUX.1's blocks with a small network in place of their modulations, T5 with a mask, and true guidance.

text.py      prompts -> hidden states of T5, each at its own length
forward.py   the transformer, from step to step
family.py    all of it as a `Family`; latents are FLUX.1's
"""
