"""What the bits of a boundary mean: the token holds the last byte of what separates lines, or sentences."""

LINE_END, SENTENCE_END = 1, 2
