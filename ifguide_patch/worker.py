"""One process of a GPT-NeoX run: applies the patch, then runs the checkout's script as if started itself."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path


def main() -> int:
    """Exit code 2 for a fault that has a message; NeoX's own errors pass through."""
    from ifguide.errors import IFGuideError, tell
    from ifguide_patch import apply
    from ifguide_patch.script import SCRIPT_VARIABLE

    try:
        apply()
        # NeoX compiles its index builder with the `python3` of the path, which must be this one
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        sys.argv[0] = os.environ[SCRIPT_VARIABLE]
        runpy.run_path(sys.argv[0], run_name="__main__")
    except IFGuideError as error:
        tell(Path(sys.argv[0]).name, error)
        return 2
    return 0


if __name__ == "__main__":
    # started by path: this folder is on the module path instead of the one that holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    sys.exit(main())
