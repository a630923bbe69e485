"""Diffusion models on one device: an engine that knows no model, and model families.

backend.py        batch -> results
prompts.py        encoded prompts, each once
step_engine.py    samples -> latents: who joins a group, and when
group.py          samples that share forward passes
in_turn.py        several groups at the same time, where stages are on several devices
own_streams.py    ... and each has CUDA streams of its own, where a step makes the host wait
borders.py        between the devices of a replica
cached_blocks.py  with a step cache: which of them need all blocks
graphs.py         a step as a CUDA graph
decode.py         latents -> pixels
files.py          images in and out
threads.py        the threads that compute, and in which order
transfer.py       between main memory and device
heap.py           what a CPU's tensors freed stays for the next ones
clock.py          seconds by stage
memory.py         what helps when memory is full
modules.py        the modules of a model; folder.py, lora.py, single_file.py, synthetic.py: how they are loaded
family.py         what the engine asks of a family
families/         one folder each
"""
