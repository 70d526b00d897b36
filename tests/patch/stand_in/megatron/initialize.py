import tempfile

import torch


def initialize_megatron(neox_args, allow_no_cuda=False):
    assert allow_no_cuda or torch.cuda.is_available(), "CUDA is required"
    if not torch.distributed.is_initialized():
        meeting = f"file://{tempfile.mkdtemp()}/group"
        torch.distributed.init_process_group(neox_args.distributed_backend, init_method=meeting, rank=0, world_size=1)
    torch.manual_seed(neox_args.seed)
