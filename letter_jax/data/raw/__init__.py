"""Readers of public raw data sets in their original formats; invalid lines are counted and reported."""
