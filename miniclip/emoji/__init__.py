"""Emoji as a data set: the same concepts drawn by twelve artists, named in many languages."""
