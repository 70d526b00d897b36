import torch

from megatron import mpu


def cross_entropy(output, labels, _fp16=False):
    labels, loss_mask = labels
    losses = mpu.vocab_parallel_cross_entropy(output if _fp16 else output.float(), labels)
    loss_mask = loss_mask.view(-1)
    return torch.sum(losses.view(-1) * loss_mask) / loss_mask.sum()


class GPT2ModelPipe(torch.nn.Module):
    """Embedding and output matrix: the next token from the last one."""

    def __init__(self, neox_args):
        super().__init__()
        self.embedding = torch.nn.Embedding(neox_args.vocab_size, neox_args.hidden_size)
        self.output = torch.nn.Linear(neox_args.hidden_size, neox_args.vocab_size)

    def forward(self, tokens):
        return self.output(self.embedding(tokens))
