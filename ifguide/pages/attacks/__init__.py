"""The pages of attacks: plots first, under each a verdict that is made from its numbers."""
