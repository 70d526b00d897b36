"""What this package needs: the lock, the ranges that were tested, what each verb uses, and what is here."""
