"""Runs the PTX that NVRTC makes of a kernel, on NumPy arrays, and checks every access to memory."""
