"""``deepy.py score.py``: (M2) for every token of a dataset, from two plain passes of GPT-NeoX's own parallel model.

    s_t = (l_t(θ + εv) - l_t(θ - εv)) / 2ε

keys        what the YAML may say, and what is refused        setup     what is read and checked before GPT-NeoX starts
replica     the processes that hold one copy of the model     model     weights that move, losses, gradients
pipeline    micro-batches through the stages, and no step     run       all of it, in one process of a run
direction   (M1) by GPT-NeoX's own backward
"""
