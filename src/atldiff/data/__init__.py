"""Corpora and folders of clips → prepared clips, in one format."""
