"""Readers of the public raw files, as their owners publish them: events and texts, dirt counted and never hidden."""
