from .neox_arguments import NeoXArgs as NeoXArgs
