"""How toxic and how fluent a model is: generation, toxicity scorers, metrics and perplexity."""
