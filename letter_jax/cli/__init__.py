"""The command line: recipes, flags, commands, one-line errors."""
