"""Toy birds: a localization data set drawn by a program, in CUB-200-2011's own layout."""
