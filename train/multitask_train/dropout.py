"""Dropout whose masks cost a CPU little.

On a CPU torch draws a mask one number at a time, which for a small encoder is a tenth of the whole
update. Four values share one draw here; on other devices torch's own dropout is fast and stays.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# A value is dropped where its 16 random bits, as a signed number, lie below a threshold.
_BITS, _SHARED = 16, 4
_LEAST, _STEPS = -(1 << (_BITS - 1)), 1 << _BITS


class QuickDropout(nn.Dropout):
    """`nn.Dropout` with p rounded to 1/65,536, and kept values scaled by what it was rounded to.

    Draws from torch's generator, so that seeds and resumed runs repeat.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Zero a random share p of the values, any shape, and scale the others by 1 / (1 - p)."""
        dropped = round(self.p * _STEPS)
        if not self.training or values.device.type != "cpu" or dropped in (0, _STEPS):
            return super().forward(values)
        keeps = _random_bits(values) >= _LEAST + dropped
        return values * keeps.to(values.dtype).mul_(_STEPS / (_STEPS - dropped))


def quicken_dropout(model: nn.Module) -> None:
    """Replace every plain `nn.Dropout` in the model, which has no weights, by a quick one."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout and not child.inplace:
                quick = QuickDropout(child.p)
                quick.train(child.training)
                setattr(parent, name, quick)


def _random_bits(like: Tensor) -> Tensor:
    """INT16 of the same shape, uniform over all its values."""
    draws = torch.empty(-(-like.numel() // _SHARED), dtype=torch.int64).random_(-(2**63), None)
    return draws.view(torch.int16)[: like.numel()].view(like.shape)
