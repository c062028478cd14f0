"""Kustomize manifests, and what writes the parts of them that have their source elsewhere."""
