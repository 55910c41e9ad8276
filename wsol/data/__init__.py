"""Images, labels and boxes: CUB-200-2011, the toy birds, and how they are prepared."""
