"""CUDA kernels on the CPU: the same source, compiled by g++, one fiber per CUDA thread."""
