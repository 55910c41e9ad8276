"""Data sets (CUB-200-2011, plain folders, toy birds), readers of files, transforms and loaders."""
