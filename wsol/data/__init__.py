"""Images, labels and boxes: CUB-200-2011, plain folders, toy birds, and how they are prepared."""
