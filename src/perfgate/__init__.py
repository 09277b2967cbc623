"""A gate for time and memory of PyTorch code, under pytest-benchmark."""
