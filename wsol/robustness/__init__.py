"""Maps, boxes and predictions under attack; ROAR and KAR; spurious correlations."""
