"""Recurrences that work only where real steps are: see `engine`."""
