"""Text and tokens: the one reader of text, the tokenizers behind it, and where tokens stand in their text.

reader       documents, queries, prompts and continuations become tokens
tokenizers   of GPT-NeoX, by its names     content: what a tokenizer's file says
record       what files say about the tokenizer that made them     recorded_tokenizer: that tokenizer
spans        tokens on a line that two tokenizers share     bpe: a tokenizer trained on texts
"""
