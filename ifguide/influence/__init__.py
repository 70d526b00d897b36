"""Which training tokens make the model toxic: curvature factors, directions (M1), token scores (M2).

the model        modules, model_folder: tracked linear layers, the untracked head, what a folder holds
                 attention: a kernel that carries tangents     head: ∇_h of the loss
the data         documents: windows, each token in exactly one     batches: padded, of similar lengths
curvature        factors: EK-FAC and simpler, by kronfluence     factor_stability: are they enough
the direction    queries, behaviours: what to score for     direction: (M1)     low_rank: cut by SVD
the pass         forward_mode, difference: (M2) exactly, and by two plain passes     step_search: its step
                 position: kronfluence's split     passes: which of them
the run          job: everything checked, one batch tried (dry_run)     shards, parts: kills and many processes
                 score: one aligned file a behaviour
cascade/         exact scores where they matter
planning/        what a run will take
"""
