"""Which training tokens make the model toxic: curvature factors, the direction (M1), token scores (M2).

modules        the model, its tracked linear layers and its untracked head
batches        sequences of unequal length -> padded batches
documents      documents -> windows, each token in exactly one
queries        the toxic and the safe query sets
factors        EK-FAC and simpler curvature, fitted with kronfluence
direction      M1
forward_mode   M2
score          the pass over the data: parts, resuming, output
"""
