"""`fastgen bench`: what each optimization buys on this machine, measured.

arms       what is compared: plain diffusers or transformers, fastgen as it is, with each optimization alone, with the
           profile's sets
work       the rows of a round, and what their pictures should show
measure    the rounds, interleaved: each arm in turn does the same rows; ratios are of the same turn
process    an arm's process, seen from here; `runner` is its inside, `baselines` the loops that we compare with
judge      how much a picture differs from the opponent's, and whether it shows what was asked for
peak       floating-point operations of a picture, and what the hardware could do
report     table, bench.json, bench.md; `chart` draws it
tune       a profile out of measurements
synthetic  full-size models without weights
"""
