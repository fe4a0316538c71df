"""Live sessions over WebSocket and WebRTC, and what their worker processes do."""
