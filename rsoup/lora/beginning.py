"""What PiSSA and OLoRA took out of the base before the training: recomputed from the base."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Pair = tuple[torch.Tensor, torch.Tensor]


def beginning(init: str, weight: torch.Tensor, rank: int, scaling: float) -> Pair:
    """(B₀, A₀) with s·B₀A₀ the part of `weight` (rows × columns, float64) that was moved into the factors.

    `pissa`: the first `rank` singular triples of the weight, divided by s. `olora`: the first columns of Q and
    rows of R of its QR decomposition, so that it took out s·QᵣRᵣ. Both are unique up to signs that cancel, as far
    as the weight's singular values differ. Sources: Meng et al. 2024, PiSSA; Büyükakyüz 2024, OLoRA; PEFT 0.21.
    """
    import torch

    if init == "pissa":
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        return left[:, :rank] * (values[:rank] / scaling), right[:rank].contiguous()
    q, r = torch.linalg.qr(weight)
    return q[:, :rank].contiguous(), r[:rank].contiguous()
