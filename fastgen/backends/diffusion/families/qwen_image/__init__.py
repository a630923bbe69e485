"""Qwen-Image, from text.

text.py      prompts -> hidden states of Qwen2.5-VL, each at its own length
latents.py   noise; images through the VAE for videos
forward.py   the transformer, from step to step
family.py    all of it as a `Family`
"""
