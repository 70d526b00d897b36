"""The page on which people label spans of text."""
