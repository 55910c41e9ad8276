"""Second derivatives: smooth activations, double backward, finite differences, BatchNorm modes."""
