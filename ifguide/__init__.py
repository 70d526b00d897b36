"""IF-Guide for GPT-NeoX: find the training tokens that make a model toxic, and train away from them."""

__version__ = "0.1.0"
