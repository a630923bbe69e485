"""The Triton kernel computes what PyTorch computes step by step. Without a GPU it runs in Triton's interpreter, in a
process of its own, since the interpreter must be chosen before Triton is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAM = """
import torch
from fastgen.opt.norm_rope_kernel import norm_rope, norm_rope_eager

torch.manual_seed(0)

def check(dtype, width, heads, text, image, fused):
    norms = [torch.nn.RMSNorm(width, eps=1e-6).to(dtype) for _ in range(2)]
    for norm in norms:
        norm.weight.data = torch.randn(width).to(dtype)
    def tokens(count):
        if not count:
            return None
        if fused:  # a third of one wide matrix: the rows are not contiguous
            return torch.randn(2, count, 3 * heads * width).to(dtype).chunk(3, -1)[1].unflatten(-1, (-1, width))
        return torch.randn(2, count, heads, width).to(dtype)
    angles = torch.randn(text + image, width // 2).repeat_interleave(2, 1)
    given = tokens(text), tokens(image), *norms, (angles.cos(), angles.sin())
    with torch.inference_mode():
        found, want = norm_rope(*given), norm_rope_eager(*given)
    assert found.shape == want.shape == (2, text + image, heads, width) and found.dtype == dtype
    off = (found.float() - want.float()).abs()
    most, usual = {
        torch.float32: (1e-5, 1e-6),
        torch.float16: (2**-9, 1e-4),  # now and then a last bit
        torch.bfloat16: (2**-5, 2**-7),  # the interpreter cuts off where a GPU rounds
    }[dtype]
    assert (off <= most * want.float().abs().clamp_min(4)).all() and off.mean() < usual, (dtype, width, off.max())
    assert want.float().std() > 0.5

for dtype in (torch.float32, torch.float16, torch.bfloat16):
    check(dtype, 128, 24, 5, 7, False)
    check(dtype, 128, 24, 0, 9, True)
    check(dtype, 24, 3, 2, 3, True)  # a width and a number of heads that fill no block

# In a model: the same picture.
from fastgen.config.families import FLUX1
from fastgen.config.optimizations import NormRope
from fastgen.opt import norm_rope as optimization
from diffusers import FluxTransformer2DModel
model = FluxTransformer2DModel(num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(4, 6, 6), guidance_embeds=False).eval()
class Modules:
    transformer = model
    parts = FLUX1
def run():
    with torch.inference_mode():
        return model(torch.ones(1, 4, 64), torch.ones(1, 3, 8), torch.ones(1, 8), torch.tensor([1.0]),
            torch.tensor([[0., i, 0.] for i in range(4)]), torch.zeros(3, 3), return_dict=False)[0]
want = run()
assert optimization.apply(Modules, NormRope(True)) == {"blocks": 2}
assert (run() - want).abs().max() < 1e-5 and want.abs().max() > 0.01
print("same")
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernel_is_its_eager_twin():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0 and done.stdout.endswith("same\n"), done.stderr[-3000:]
