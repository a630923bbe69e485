"""What to run first on a new GPU: is everything right there, and how fast is it?

    python -m bench.gpu --out gpu-results            # in calls of at most 9 minutes; the same command goes on
    python -m bench.gpu --out try --device cpu       # a rehearsal with the embedded model, a few minutes

Its parts are environment, parity, attention, quantize, speed and trace. Each is a process of its own, so one that
crashes or hangs costs no other. Each finished cell is a file in --out/cells, and is not measured again. results.json,
results.md and profile.toml are written anew after every part. Weights are random (`synthetic`), since speed does not
depend on them; pictures are noise.
"""
