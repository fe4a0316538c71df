"""Work side by side: worker processes, a Ray cluster, threads, channels between them, locks."""
