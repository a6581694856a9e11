"""The client without its I/O: builds requests, reads answers, decides about retries.

The synchronous and the asynchronous client share all of it. Nothing here opens a socket, sleeps or reads a clock.
"""
