"""What the page of a comparison says beside its tables: verdicts in sentences, caveats, texts side by side."""
