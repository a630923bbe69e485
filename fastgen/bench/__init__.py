"""`fastgen bench`: measures what each optimization gains on this machine.

arms       what is compared: plain diffusers or transformers, plain fastgen, each optimization alone, the profile's sets
work       the rows of a round, and what their images should show
measure    the rounds, interleaved: all arms process the same rows; ratios are within one round
process    an arm's process, seen from here; `runner` is its inside, `baselines` the loops that we compare with
judge      how much an image differs from the baseline's, and whether it shows what was asked for
peak       floating-point operations per image, and the peak of the hardware
report     table, bench.json, bench.md; `chart` draws it
tune       makes a profile from measurements
synthetic  full-size models without weights
"""
