"""PyTorch with torch.compile."""

from . import torch_peer


class Contender(torch_peer.Contender):
    compiled = True
