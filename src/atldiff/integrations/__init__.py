"""A face for frameworks of voice assistants, one module each."""
