"""Changing what a model answers, only where a localization allows it. One objective a module."""
