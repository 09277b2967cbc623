"""Earlier names of `perfgate`, for projects that use them."""
