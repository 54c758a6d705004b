"""Semantic IDs: the codes of a catalogue's items, their trie, their tokens, and their table on disk."""
