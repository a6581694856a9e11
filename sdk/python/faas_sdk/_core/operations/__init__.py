"""One module for each resource of the HTTP contract; one function for each operation, which makes a `Call`."""
