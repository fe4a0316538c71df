"""Files as people have them: sound tracks, pictures, films; their writing, their marks of synthetic content."""
