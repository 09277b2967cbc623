"""Passes over a network as workloads: model, data, arithmetic, reference and floor."""
