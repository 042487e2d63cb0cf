"""The target ExecuTorch."""
