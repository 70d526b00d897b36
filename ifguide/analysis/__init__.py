"""What is inside a trained model: did it never learn abuse, or does it only not say it?

Five analyses of several models at once, of which the first is the base that the others are held against:

    lens        at which layer do toxic tokens become likely?                       `ifguide.analysis.logit_lens`
    direction   does adding the toxic direction bring abuse back?                   `ifguide.analysis.directions`
    probe       can toxic text be told from safe text inside?                       `ifguide.analysis.probes`
    neurons     which neurons write abuse, and what became of them?                 `ifguide.analysis.neurons`
    drift       where did training edit, and how locally?                           `ifguide.analysis.drift`

Symbols: x_l[T, d] the residual stream after block l (x_0 is what the first block reads), L blocks, F the final norm,
U[V, d] the head, N neurons of a block: neuron i has the key k_i (row of the MLP's first matrix), the activation m_i and
the value v_i (column of its last matrix), and writes m_i v_i. What a block adds is its attention and its MLP:

    x_l = x_{l-1} + attn_l + Σ_i m_i v_i + b_l

The definitions, the traps and what each costs: docs/mechanism.md.
"""
