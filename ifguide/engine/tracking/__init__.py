"""Where else a run is told to: TensorBoard and Weights & Biases."""
