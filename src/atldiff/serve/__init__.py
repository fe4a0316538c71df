"""The HTTP and WebSocket service: :func:`atldiff.serve.server.run_server`."""
