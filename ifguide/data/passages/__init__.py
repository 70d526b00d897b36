"""Lines and sentences of tokenized documents.

bits         what a boundary says
cutting      where they end, from the bytes that tokens spell
boundaries   that, kept beside the tokens as an aligned dataset
"""
