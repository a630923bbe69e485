"""The processes of a replica that compute each image together (`--parallel context`): one per device.

lead.py      the first one: it decides, and the worker pool knows only it
follow.py    each of the others: does what the first one says
messages.py  what they tell each other

Decisions (which samples form a group, when it takes a step) go through a socket pair. Tensors go through
torch.distributed. All of them then run the same code on the same samples. When one of them ends, all do.
"""
