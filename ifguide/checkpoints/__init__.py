"""GPT-NeoX checkpoints <-> Hugging Face folders: GPT-NeoX (Pythia) and Llama architectures.

`layout` is how NeoX names, splits and stores weights; `gpt_neox` and `llama` are the two maps; `reference` is
NeoX's forward pass over a checkpoint's own files, against which `check` holds every conversion.
"""
