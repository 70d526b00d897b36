"""What stands in the place of GPT-NeoX's functions while it trains: one file for each thing that changes."""
