"""The pages of analyses: findings as plots with a verdict each, one folder or several."""
