"""The training loop and everything it needs: checkpoints, interrupts, guards and logs."""
