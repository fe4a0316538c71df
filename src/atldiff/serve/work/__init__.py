"""Jobs: the queue, the table of them, and the worker processes that make videos."""
