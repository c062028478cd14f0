"""Feast: the definitions, the two stores, and the one home of all that is done with them (`feature_repo.store`)."""
