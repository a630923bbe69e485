"""The processes of a replica that compute each image together (`--parallel context`): one per device.

lead.py      the first one: it decides, and the worker pool knows only it
follow.py    each of the others: does what the first one says
other.py     one of the others, as the first one sees it
group.py     how they find each other, and part
messages.py  what they tell each other

Decisions (which samples form a group, when it takes a step) go through a socket pair. Tensors go through
torch.distributed. All of them then run the same code on the same samples. When one of them ends, all do.
When the memory of one is full, all give up the step, connect anew and begin again with fewer samples.
"""
