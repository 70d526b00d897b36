"""Guard models as judges: they are asked in their own chat template, and their first word is the verdict.

families   what each family is asked, and how it answers
scorer     asking a model of a family
"""
