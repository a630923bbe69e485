"""FLUX.1 and FLUX.1-Kontext on one device.

load.py     model folder -> Modules
encode.py   prompts -> embeddings, images -> reference latents
denoise.py  noise -> latents: the step loop
decode.py   latents -> pixels
backend.py  puts them together: batch -> results
"""
