"""A dress rehearsal of the GPU path on a machine without a GPU: the real engine, full-size models, fake CUDA tensors.

    python -m tests.rehearsal            # the whole matrix; rewrites docs/rehearsal.md and its JSON
    python -m pytest -m rehearsal        # the part that CI runs

It finds mistakes of device, dtype and shape, what does not fit a card, every wait of the host for the device with the
line that causes it, and work that the model's config does not account for. It cannot find NaN, a kernel's own checks,
fragmentation, real times, or what torch.compile generates.
"""
