"""What `make gpu-check` does on a machine with a GPU: tests, sanitizers, times."""
