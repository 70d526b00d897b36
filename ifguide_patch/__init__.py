"""IF-Guide inside an unedited GPT-NeoX checkout: a patch applied at run time, in the launcher and every worker.

It runs in the environment of the checkout's user, so beyond torch and numpy it imports nothing but
`ifguide`'s errors, files, objective, penalty keys and data formats.
"""

from ifguide_patch.apply import apply, undo

__all__ = ["apply", "undo"]
