"""The page about what masks select; it needs the standard library alone, as every verb of the base install does."""
