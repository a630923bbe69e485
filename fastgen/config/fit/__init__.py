"""How a model fits into a GPU's memory.

memory    what a choice needs: a pure function with named terms
card      what a GPU and the machine have free
planner   which choice is taken, and why the others are not

A plan is for one GPU, the one with the least room, because all of a run do the same. Sharding over several would be one
more placement: `memory.need` for each of them, and a candidate in `planner`.
"""
