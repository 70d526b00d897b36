"""Starts train.py once, with the configuration on its command line."""

import subprocess
import sys

from megatron.neox_arguments import NeoXArgs

if __name__ == "__main__":
    config = NeoXArgs.consume_deepy_args(sys.argv[1:])
    sys.exit(subprocess.run([sys.executable, config.user_script, "--megatron_config", config.encoded()]).returncode)
