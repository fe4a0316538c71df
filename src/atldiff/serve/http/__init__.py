"""The service as seen from outside: requests, answers, pages, webhooks."""
