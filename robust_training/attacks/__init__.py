"""Attacks: PGD on any score, and attacks on attribution maps."""
