"""Recommendations over HTTP: requests are gathered into batches for one `serving.recommender.Recommender`."""
