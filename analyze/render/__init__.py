"""Renderers: they turn finished numbers into text, JSON and CSV, and compute nothing."""
