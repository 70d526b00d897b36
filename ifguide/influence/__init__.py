"""Which training tokens make the model toxic: curvature factors, directions (M1), token scores (M2).

what is asked    options: of fit-factors, score and plan, each once
the model        `models.tracked`: tracked linear layers and an untracked head     head: ∇_h of the loss
the data         windows: each token scored in exactly one     batches: padded, of similar lengths
curvature/       store: EK-FAC and simpler, on disk     fit: by kronfluence     stability: are they enough
the direction    queries, behaviours: what to score for     direction: (M1)
passes/          forward_mode, difference: (M2) exactly, and by two plain passes     step_search: its step
                 position: kronfluence's split     low_rank: directions cut by SVD     method: which of them
                 checks: one batch before the long work
the run          job: everything checked, one batch tried     shards, shard_store: kills and many processes
                 score: one aligned file a behaviour
cascade/         exact scores where they matter
planning/        what a run will take
"""
