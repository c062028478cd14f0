"""The pipelines: one definition each, for this machine and for Kubeflow alike."""
