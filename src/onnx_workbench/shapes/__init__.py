"""Shapes promised against shapes kept."""
