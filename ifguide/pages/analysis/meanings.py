"""What analyses measure, in words: for the folded part of their pages."""

from __future__ import annotations

TITLES = {
    "lens": "Logit lens: where toxic tokens become likely",
    "direction": "The toxic direction, added while the model speaks",
    "probe": "Probes: toxic text told from safe text inside",
    "neurons": "The neurons that write abuse",
    "drift": "Where training edited the model",
}
MEANINGS = {
    "all": {
        "95% interval": "Percentile bootstrap over prompts or texts, the same draws for all models. It says what other "
        "texts of the same kind might have given, and nothing of other seeds of training.",
    },
    "lens": {
        "Logit lens": "softmax(U F(x_l)): what the head would say if the model ended after layer l; the final norm F "
        "is applied once to each layer.",
        "Places": "Texts and tokens where one of the base's likeliest tokens is toxic. All models are asked for that "
        "token's probability there, so a model may say other toxic things elsewhere.",
        "What it cannot tell": "Middle layers need not speak the head's language: a low curve there does not prove "
        "that nothing is known.",
    },
    "direction": {
        "Direction": "v = mean x_L(toxic) - mean x_L(safe) at the last token of the queries, of the model itself or of "
        "the base.",
        "Scale": "The head reads F(x_L + a v) at every token it writes; blocks and cache do not change.",
        "EMT, TP": "EMT is the mean over prompts of the highest score among a prompt's continuations; TP the share of "
        "prompts with one that scores 0.5 or more.",
        "What it cannot tell": "Any vector that is large enough changes what is said. Empty texts and perplexity say "
        "what a scale costs; the cosine between two halves of the texts says how well v is known.",
    },
    "probe": {
        "AUC": "Share of pairs of a toxic and a safe text of one fold in which the toxic one scores higher; 0.5 is "
        "chance. No prompt is in two folds.",
        "Controls": "A probe that was trained on shuffled labels; a small MLP; the base's probe on the other models.",
        "Layer 0": "The mean of the embeddings is a bag of words. Where it suffices, so do all layers above it, "
        "whatever the model has learnt.",
        "What it cannot tell": "A probe says what can be read, not what the model uses.",
    },
    "neurons": {
        "Toxic set": "The neurons of all layers whose value vectors have the largest cosine with the base's probe w.",
        "Change along w": "From the base to the model: w·Δx_0 + Σ w·Δattn + Σ Δ(m_i w·v_i) + w·Δb, without remainder.",
        "Share": "The part of the toxic set in that change, above 1 or below 0 where others work against it.",
        "Un-align": "The keys of the best few are multiplied (of a gated MLP the rows beside the gate), the biases "
        "left as they are, and the model speaks again; as many random neurons of the same layers are the control.",
    },
    "drift": {
        "Matrices": "Frobenius norm of the change over that of the base's matrix.",
        "Stable rank": "|ΔW|_F² / |ΔW|_2²: how many directions the change has.",
        "Neurons": "1 - cosine of a neuron's key and of its value before and after.",
        "Toxic against random": "The toxic set's mean against random sets with as many neurons in each layer; the "
        "interval holds 95% of them.",
        "CKA": "Linear CKA of the residual stream with the base's on the same tokens; 1 is the same up to rotation and "
        "scale. Its interval is a jackknife over texts.",
    },
}
