"""The I/O of the clients, over httpx2: sends a `Call`, waits between attempts. Decides nothing itself."""
