"""Using a trained generator: recommendations in memory and as JSON lines, cold items, and the export."""
