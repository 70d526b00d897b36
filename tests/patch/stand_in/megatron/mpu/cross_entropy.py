import torch.nn.functional as F


def vocab_parallel_cross_entropy(vocab_parallel_logits, target):
    """[B, T, V], [B, T] -> [B, T]."""
    return F.cross_entropy(vocab_parallel_logits.transpose(1, 2), target, reduction="none")
