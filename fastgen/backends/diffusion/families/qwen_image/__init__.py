"""Qwen-Image, and Qwen-Image-Edit with one or several input images.

text.py      prompts -> hidden states of Qwen2.5-VL, each at its own length
seen.py      prompts together with images -> the same
latents.py   noise; images through the VAE for videos
forward.py   the transformer, from step to step
family.py    all of it as a `Family`
edit.py      the same for Qwen-Image-Edit
"""
