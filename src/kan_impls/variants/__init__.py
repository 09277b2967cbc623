"""The KAN variants: one file per implementation. They never import each other."""
