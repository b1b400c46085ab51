"""Bringing back what an edit removed. One attack a module."""
