"""Hugging Face models: what a folder says, how it is loaded, and the two forms that the rest works with.

folder           configuration, fingerprint of weights and tokenizer     devices: where a model goes
loading          the weights
language_model   a model and its reader of text, to generate and to be evaluated
tracked          a model split at its head, to be scored     attention: carries forward-mode tangents
"""
