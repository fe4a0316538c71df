"""The run of every part: its loop, draws, checkpoints, reports, devices."""
