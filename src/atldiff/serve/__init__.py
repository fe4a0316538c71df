"""The HTTP and WebSocket service: :func:`atldiff.serve.http.server.run_server`."""
