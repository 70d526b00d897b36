"""How toxic a text is: `registry` loads a scorer by its name, `base` is what every scorer is.

huggingface, detoxify, linear, lexicon   the scorers
guards, plugin                           guard models that are asked; a function of the user's own
batching                                 which texts they score together
wrapper                                  around a scorer: stored (remembers), shared (by all ranks), reporting (shows)
"""
