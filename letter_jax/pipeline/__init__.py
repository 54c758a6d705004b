"""The pipeline: stages, their graph and records, and runs of one config or of a sweep."""
