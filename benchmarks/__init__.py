"""Measurements behind the numbers of the README."""
