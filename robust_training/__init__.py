"""Attribution-robust training of timm classifiers: images in [0,1] and labels in, a model out."""
