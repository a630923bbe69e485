"""FLUX.1 (dev, schnell and those trained from them) and FLUX.1-Kontext.

load.py      model folder -> Modules
text.py      prompts -> embeddings
latents.py   noise, packing, positions, masks; images -> reference latents
forward.py   the transformer, from step to step
family.py    all of it as a `Family`
"""
