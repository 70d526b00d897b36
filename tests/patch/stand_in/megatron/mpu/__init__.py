from .cross_entropy import vocab_parallel_cross_entropy as vocab_parallel_cross_entropy
from .data import broadcast_data as broadcast_data


def get_model_parallel_rank():
    return 0
