"""How toxic a text is: `registry` loads a scorer by its name, `base` is what every scorer is.

huggingface, detoxify, linear, lexicon   the scorers
wrapper                                  around a scorer: stored (remembers), shared (by all ranks), reporting (shows)
"""
