"""timm classifiers that take images in [0,1]: create, wrap, save and load them."""
