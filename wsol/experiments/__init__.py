"""Complete experiments: evaluation, comparison of methods, ROAR and KAR, detectors."""
