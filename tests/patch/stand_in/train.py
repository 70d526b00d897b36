"""One worker."""

from megatron.neox_arguments import NeoXArgs
from megatron.training import pretrain

if __name__ == "__main__":
    pretrain(NeoXArgs.consume_neox_args())
