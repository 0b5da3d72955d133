"""Closed forms that the network starts from; one contract (`fit`, `condition`), none imports another."""
