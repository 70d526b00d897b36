from .arguments import NeoXArgs as NeoXArgs
