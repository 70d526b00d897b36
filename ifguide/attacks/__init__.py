"""Attacks on models that say nothing toxic: is it hidden or was it never learned?

options       every option once                          subjects   the models, and what they are given to read
judge         continues prompts and scores what is said  folder     results.json, run.json, the page, what is resumed
gcg/          a suffix that makes the model say a target
relearn       fine-tunes on a few documents              training   the loop that does it
orthogonalise removes a direction                        directions finds it and takes it out
prompts       adversarial prompts as they are            blocks     where a model's layers lie
"""
