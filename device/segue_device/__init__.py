"""Segue."""
