"""What the project itself keeps on disk: JSON, and the weights of a network beside its configuration."""
