"""How a model fits into a GPU's memory.

memory    what a choice needs: a pure function with named terms
card      what a GPU and the machine have free
planner   which choice is taken, and why the others are not

stages    which blocks lie on which GPU, where several share a model; sharded: whether that fits

A plan is for one replica, the one with the least room, because all of a run do the same.
"""
