"""bitsandbytes' 8bit layer, without its overflow.

On a GPU its products are in float16, whose largest number is 65504, and so are the inputs that it quantizes. Some
activations of FLUX are larger, and would become infinite. Here each token is scaled by a power of two to at most 1
before, and back after. That changes no other digit, since its numbers in 8 bits do not depend on its scale.
"""

from __future__ import annotations

import bitsandbytes
import torch

MOST = 65504.0
"""The largest float16."""


class Linear8bit(bitsandbytes.nn.Linear8bitLt):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Args: x: (..., inputs), any float type. Returns (..., outputs) of the same type."""
        if self.training:  # on a CPU, where it multiplies in the type of its input
            return super().forward(x)
        self.state.is_training = False
        if self.weight.CB is not None:
            self.init_8bit_state()
        exponent = torch.frexp(x.detach().abs().amax(-1, keepdim=True).float()).exponent
        scale = torch.exp2(exponent.clamp(-100, 100).float())
        small = (x * scale.reciprocal().to(x.dtype)).to(torch.float16)
        out = bitsandbytes.matmul(small, self.weight, bias=None, state=self.state).to(x.dtype) * scale.to(x.dtype)
        return out if self.bias is None else out + self.bias.to(x.dtype)

    def largest(self) -> float:
        """The largest number that it can make of inputs up to 1, without its bias."""
        codes, scales = (self.state.CB, self.state.SCB) if self.weight.CB is None else (self.weight.CB, self.weight.SCB)
        return float((codes.to(torch.float16).abs().sum(-1, dtype=torch.float32) * scales / 127).max())
