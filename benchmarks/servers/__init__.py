"""Servers on 127.0.0.1 that add latency, and count: nginx, or one in Python, and moto's S3."""
