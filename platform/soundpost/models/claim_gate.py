"""Whether a text says anything that a reranker can judge and similarity cannot.

"A dog" is found by similarity as well as it can be; that a dog barks before a car horn sounds, or
louder, or at the same time, is what rerankers were trained to hear. Where a text claims nothing of
the kind, a second opinion about it is noise, and is not asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 32


class ClaimGate(nn.Module):
    """Logits of texts from the states of their tokens: above 0, a text claims something.

    A layer over each token, the strongest answer of any token in each dimension, and their weighted
    sum: one word is enough. Not yet trained, it takes every text for a claim.
    """

    def __init__(self, token_width: int) -> None:
        super().__init__()
        # Zeros draw no random numbers: what is trained beside it does not depend on it.
        self.hidden = nn.Parameter(torch.zeros(WIDTH, token_width), requires_grad=False)
        self.hidden_bias = nn.Parameter(torch.zeros(WIDTH), requires_grad=False)
        self.last = nn.Parameter(torch.zeros(WIDTH), requires_grad=False)
        self.bias = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return logits [B] of tokens [B, L, W], of which lengths [B] count."""
        states = functional.layer_norm(tokens, tokens.shape[-1:])
        answers = torch.relu(functional.linear(states, self.hidden, self.hidden_bias))
        # ReLU leaves nothing below 0, so tokens past the end never are the strongest.
        valid = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        strongest = (answers * valid[..., None]).amax(dim=1)
        return strongest @ self.last + self.bias
